"""All settings are read from settings.ini; with configparser, so that installing needs nothing beyond setuptools."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

suffix = "_requirements"
extras = {key[: -len(suffix)]: value.split() for key, value in cfg.items() if key.endswith(suffix)}
extras["all"] = sorted({req for name, reqs in extras.items() if name != "dev" for req in reqs})
readme = here / "README.md"


class BuildWithEvidence(build_py):
    """Copies the measured results that pages read, bench/evidence, to ftkit/evidence in a wheel; an editable install
    reads them in place.
    """

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        to = Path(self.build_lib) / "ftkit" / "evidence"
        self.mkpath(str(to))
        for file in sorted((here / "bench" / "evidence").glob("*.json")):
            if not file.stem.isupper():  # STALE.json is for the tests
                self.copy_file(str(file), str(to / file.name))


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Natural Language :: English",
        "Programming Language :: Python :: 3",
        "Framework :: Jupyter",
    ],
    python_requires=">=" + cfg["min_python"],
    package_dir={"": "."},  # so that an editable install adds this folder to the path, where nbdev finds tools.callouts
    packages=find_packages(include=["ftkit", "ftkit.*"]),
    package_data={"ftkit": ["zoo/**/*"]},
    cmdclass={"build_py": BuildWithEvidence},
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
