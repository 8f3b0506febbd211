"Pictures of plain data: what a page cannot hold of `ftkit.show`."
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

from ftkit.core import FtError
from ftkit.show import Figure, anatomy_picture, bars, bytes_, curves, legible, number, pick_font, records, seconds, table

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "<script>alert('x')</script>"
PART = dict(name="encoder.layer.0", kind="block", total=1000, trains=0, added=0, roles=["query"])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}).stdout


def test_import_is_light(): run("import sys, ftkit.show; bad = {'torch', 'matplotlib', 'numpy', 'pandas', 'PIL'} & set(sys.modules); assert not bad, bad")


@pytest.mark.parametrize("n, text", [(0, "0"), (7, "7"), (999, "999"), (999.6, "1k"), (1_200_000, "1.2M"), (999_999, "1M"), (-1_500, "-1.5k"), (0.8, "0.8"), (1e-5, "1e-5"),
                                     (1e-12, "1e-12"), (7e12, "7T"), (None, "–"), (math.nan, "–"), (math.inf, "–"), ("12", "–"), (10 ** 400, "–"), (pd.NA, "–")])
def test_number(n, text): assert number(n) == text


@pytest.mark.parametrize("s, text", [(0, "0 ms"), (0.0005, "0.5 ms"), (0.9999, "1 s"), (3.21, "3.21 s"), (59.96, "1 min"), (75, "1 min 15 s"), (3599.9, "1 h"), (3600, "1 h"),
                                     (3725, "1 h 2 min"), (172_000, "47 h 47 min"), (200_000, "2 d 8 h"), (None, "–")])
def test_seconds(s, text): assert seconds(s) == text


@pytest.mark.parametrize("n, text", [(0, "0 B"), (512, "512 B"), (1000, "1 kB"), (999_950, "1 MB"), (1_234_567, "1.23 MB"), (5e15, "5e+03 TB"), (None, "–")])
def test_bytes(n, text): assert bytes_(n) == text


def test_records_take_frames_and_dicts_and_refuse_the_rest():
    rows = [{"a": 1}, {"a": 2}]
    assert records(pd.DataFrame(rows)) == records(iter(rows)) == rows
    for wrong in (3, "abc", [1, 2], None):
        with pytest.raises(FtError, match="data frame or a list of dicts"): records(wrong)


def test_table_escapes_everything():
    shown = table([{SCRIPT: SCRIPT, "b": [SCRIPT], "c": {"k": SCRIPT}}], caption=SCRIPT)
    assert "<script" not in shown._repr_html_() and shown._repr_html_().count("&lt;script&gt;") == 5


def test_table_lines_are_as_wide_as_each_other_in_a_terminal():
    from ftkit.show import _columns_wide
    lines = repr(table([{"name": "正面の例", "n": 1}, {"name": "a\nb\x1b[31m", "n": 12345}])).split("\n")
    assert "\x1b" not in lines[3] and len({_columns_wide(line) for line in lines}) == 1


def test_table_of_gaps_types_and_many_rows():
    shown = table([{"a": None, "b": True, "c": math.nan}, {"a": 3, "d": (1, 2)}])
    assert shown.cells == [["–", "yes", "–", ""], ["3", "", "", "1, 2"]] and shown.columns == ["a", "b", "c", "d"]
    assert "… 40 more rows" in repr(table([{"i": i} for i in range(100)])) and "… 40 more rows" in table([{"i": i} for i in range(100)])._repr_html_()
    assert repr(table([])) and table([])._repr_html_()
    assert table([{"a": 1, "b": 2}], columns=["b"]).cells == [["2"]]
    with pytest.raises(FtError, match="no column 'c'.*a, b"): table([{"a": 1, "b": 2}], columns=["c"])


def test_fonts_fall_back_to_what_is_installed():
    # U+1D81 is in STIXGeneral, which travels with Matplotlib, and not in DejaVu Sans.
    assert pick_font(["ᶁ"])[0] == "DejaVu Sans" and len(pick_font(["ᶁ"])) == 2 and legible("ᶁ") == "ᶁ"
    bars([{"method": "ᶁ", "v": 1}], "v")._repr_html_()


def test_no_empty_boxes():
    odd = "\U0010fffd"
    assert legible(f"a{odd}b") == "a\\u10fffdb" and legible("a\u200db") == "a\u200db"
    for picture in (bars([{"method": odd, odd: 1}], odd, title=odd), curves([{"step": 1, odd: 1}], title=odd), anatomy_picture([PART | {"name": odd, "roles": [odd]}], title=odd)):
        picture._repr_html_()  # Matplotlib warns of a missing glyph, and a warning is an error here
        assert odd in picture.alt


@pytest.mark.parametrize("text", ["正面 と 한국어", "دقة النموذج", "हिन्दी ไทย עברית", "$x^2$ & $", "a\nb\tc", "_hidden", "x" * 500, "\ud800", "\u202eabc", ""])
def test_any_label_is_drawn(text):
    for picture in (bars([{"method": text, "v": 1}, {"method": "b", "v": None}], "v", title=text, baseline=.5), curves([{"step": 1, text or "v": 1}, {"step": 2, text or "v": 2}], title=text),
                    anatomy_picture([PART | {"name": text, "roles": [text]}], title=text)):
        assert picture._repr_html_().isprintable() and picture._repr_html_().encode("utf-8")


def test_figures_escape_their_alt_text():
    for picture in (bars([{SCRIPT: SCRIPT, "v": 1}], "v", label=SCRIPT), curves([{"step": 1, SCRIPT: 1}]), anatomy_picture([PART | {"name": SCRIPT, "roles": [SCRIPT]}])):
        assert "<script" not in picture._repr_html_() and "&lt;script&gt;" in picture._repr_html_() and repr(picture) == picture.alt


def test_same_data_same_bytes_in_another_process():
    code = "from ftkit.show import *; import hashlib; h = lambda f: hashlib.sha256(f._repr_html_().encode()).hexdigest()\n" \
           "print(h(curves([{'step': i, 'loss': 1 / (i + 1)} for i in range(90)])), h(bars([{'method': 'a', 'v': 1}], 'v')))"
    assert run(code) == run(code)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_saved_files_are_the_same_twice(ending, tmp_path):
    files = [bars([{"method": "a", "v": 1}], "v").save(tmp_path / f"{name}.{ending}") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes() and sorted(p.name for p in tmp_path.iterdir()) == [f"a.{ending}", f"b.{ending}"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    picture, old = bars([{"method": "a", "v": 1}], "v"), tmp_path / "a.png"
    old.write_bytes(b"old")
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(picture, "_bytes", full)
    with pytest.raises(FtError, match="No space left"): picture.save(old)
    assert old.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FtError, match="no known ending"): picture.save(tmp_path / "a.gif")


def test_pyplot_figures_are_closed_and_keep_their_style():
    import matplotlib.pyplot as plt
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    shown = Figure(fig, "a line")
    assert not plt.get_fignums() and shown._repr_html_().startswith('<img alt="a line"')


def test_the_users_settings_are_left_alone():
    import matplotlib
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 33, "text.usetex": False}):
        loud = bars([{"method": "a", "v": 1}], "v")._repr_html_()
        assert matplotlib.rcParams["font.size"] == 33
    assert loud == bars([{"method": "a", "v": 1}], "v")._repr_html_() and dict(matplotlib.rcParams) == before


def test_curves_take_gaps_and_leave_bookkeeping_out():
    rows = [dict(step=i, epoch=0, loss=1.0 / i, norm=9, lr=1e-3, **({"valid_accuracy": i / 10} if i % 2 else {})) for i in range(1, 9)]
    rows[3]["loss"] = math.nan
    alt = curves(pd.DataFrame(rows), title="A run").alt
    assert alt == "A run: Curves over step. loss from 1 to 0.125, lowest 0.125 at step 8; valid_accuracy from 0.1 to 0.7, highest 0.7 at step 7."
    assert "norm" in curves(rows, y=["norm"]).alt


def test_losses_and_scores_do_not_share_a_panel():
    rows = [dict(step=i, loss=3 - i, valid_loss=3.5 - i, valid_accuracy=i / 3, valid_f1=i / 4, valid_perplexity=40 - i) for i in range(3)]
    axes = curves(rows).fig.axes
    assert [len(ax.get_lines()) for ax in axes] == [2, 2, 1]
    for ax in axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()]
        assert len(set(looks)) == len(looks), "colour is never the only sign"


def test_nothing_to_draw_is_said():
    for draw in (lambda: curves([]), lambda: bars([], "v"), lambda: anatomy_picture([])):
        with pytest.raises(FtError, match="the table is empty"): draw()
    with pytest.raises(FtError, match="no curve to draw"): curves([{"step": 1, "loss": None}])
    with pytest.raises(FtError, match="'v' holds no numbers"): bars([{"method": "a", "v": "x"}], "v")
    with pytest.raises(FtError, match="no column 'spread'"): bars([{"method": "a", "v": 1}], "v", error="spread")
    with pytest.raises(FtError, match="no column 'trains'"): anatomy_picture([{"name": "a", "kind": "block", "total": 3}])


def test_bars_are_sorted_and_say_what_is_missing():
    rows = [{"method": "a", "v": .5}, {"method": "b", "v": None}, {"method": "c", "v": .75}]
    assert bars(rows, "v").alt == "v by method: c 0.750, a 0.500, b not measured."
    assert bars(rows, "v", sort=False).alt == "v by method: a 0.500, b not measured, c 0.750."


@pytest.mark.parametrize("values", [[0, 0], [1, 1], [-1, -2], [-1, 2], [1e-9, 1e9], [5]])
def test_bars_of_any_size(values):
    rows = [{"method": str(i), "v": v, "e": .1 * abs(v)} for i, v in enumerate(values)]
    picture = bars(rows, "v", error="e", beside="v")
    left, right = picture.fig.axes[0].get_xlim()
    assert left <= min(values) and right > max(values) and picture._repr_html_()


def test_anatomy_shows_what_trains_by_hatching_too():
    parts = [PART, PART | {"trains": 1000}, PART | {"trains": 10, "added": 10}, PART | {"total": 0}]
    assert [patch.get_hatch() or "" for patch in anatomy_picture(parts).fig.axes[0].patches] == ["", "///", "", "...."]


def test_anatomy_of_many_blocks_is_folded():
    parts = [PART | {"name": f"layer.{i}", "trains": 1000 * (i > 20)} for i in range(24)]
    alt = anatomy_picture(parts).alt
    assert "layer.0 … 20 (21 times) 1k frozen; layer.21 … 23 (3 times) 1k trains" in alt and "24k parameters, 12.5% train" in alt
    assert anatomy_picture(parts, most=30).alt.count("frozen") == 21


def test_a_thin_share_can_be_seen_and_is_not_called_all():
    from ftkit.show import _say_part, _shares
    assert _shares(PART | {"total": 10 ** 9, "trains": 1})[1] > .03 and math.isclose(sum(_shares(PART | {"trains": 500, "added": 1})), 1)
    assert _say_part(PART | {"total": 10 ** 6, "trains": 10 ** 6 - 1}) == "99.9% trains"


def test_legends_lie_below_the_name_of_their_axis():
    "However many curves a panel has, nothing is printed over anything."
    from ftkit.show import curves
    rows = [{"step": i, "loss": 1.5 / i, "valid_loss": 1 / i, **{f"valid_{n}": 0.5 + 0.01 * i for n in ("accuracy", "f1", "auc", "sensitivity", "specificity")}} for i in range(1, 9)]
    fig = curves(rows).fig
    fig.canvas.draw() if hasattr(fig.canvas, "get_renderer") else fig.savefig(__import__("io").BytesIO())
    for ax in fig.axes:
        legend, name = ax.get_legend().get_window_extent(), ax.xaxis.label.get_window_extent()
        assert legend.y1 <= name.y0 and legend.y0 >= 0 and ax.get_window_extent().height > 60
        assert all(t.get_window_extent().x0 >= 0 for t in ax.get_yticklabels())
