"Figures of plain data: what a page cannot hold of `ftkit.plot.charts`."

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest

import ftkit as ft
from ftkit.core import FtError
from ftkit.plot.charts import Figure, bars, curves, pick_font, plot_anatomy_rows, replace_missing_glyphs, wrap
from ftkit.plot.tables import (
    axis_range,
    display_width,
    format_bytes,
    format_number,
    format_seconds,
    log_ticks,
    records,
    table,
    tick_labels,
)

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "<script>alert('x')</script>"
PART = dict(name="encoder.layer.0", kind="block", total=1000, trains=0, added=0, roles=["query"])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout


def test_import_is_light():
    run(
        "import sys, ftkit.plot.charts;"
        " bad = {'torch', 'matplotlib', 'numpy', 'pandas', 'PIL'} & set(sys.modules); assert not bad, bad"
    )


@pytest.mark.parametrize(
    "n, text",
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.6, "1k"),
        (1_200_000, "1.2M"),
        (999_999, "1M"),
        (-1_500, "-1.5k"),
        (0.8, "0.8"),
        (1e-5, "1e-5"),
        (1e-12, "1e-12"),
        (7e12, "7T"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        ("12", "–"),
        (10**400, "–"),
        (pd.NA, "–"),
    ],
)
def test_number(n, text):
    assert format_number(n) == text


@pytest.mark.parametrize(
    "s, text",
    [
        (0, "0 ms"),
        (0.0005, "0.5 ms"),
        (0.9999, "1 s"),
        (3.21, "3.21 s"),
        (59.96, "1 min"),
        (75, "1 min 15 s"),
        (3599.9, "1 h"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (172_000, "47 h 47 min"),
        (200_000, "2 d 8 h"),
        (None, "–"),
    ],
)
def test_seconds(s, text):
    assert format_seconds(s) == text


@pytest.mark.parametrize(
    "n, text",
    [
        (0, "0 B"),
        (512, "512 B"),
        (1000, "1 kB"),
        (999_950, "1 MB"),
        (1_234_567, "1.23 MB"),
        (5e15, "5e+03 TB"),
        (None, "–"),
    ],
)
def test_bytes(n, text):
    assert format_bytes(n) == text


def test_records_take_frames_and_dicts_and_refuse_the_rest():
    rows = [{"a": 1}, {"a": 2}]
    assert records(pd.DataFrame(rows)) == records(iter(rows)) == rows
    for wrong in (3, "abc", [1, 2], None):
        with pytest.raises(FtError, match="data frame or a list of dicts"):
            records(wrong)


def test_table_escapes_everything():
    shown = table([{SCRIPT: SCRIPT, "b": [SCRIPT], "c": {"k": SCRIPT}}], caption=SCRIPT)
    assert "<script" not in shown._repr_html_() and shown._repr_html_().count("&lt;script&gt;") == 5


def test_table_lines_are_as_wide_as_each_other_in_a_terminal():
    lines = repr(table([{"name": "正面の例", "n": 1}, {"name": "a\nb\x1b[31m", "n": 12345}])).split("\n")
    assert "\x1b" not in lines[3] and len({display_width(line) for line in lines}) == 1


def test_table_of_gaps_types_and_many_rows():
    shown = table([{"a": None, "b": True, "c": math.nan}, {"a": 3, "d": (1, 2)}])
    assert shown.cells == [["–", "yes", "–", ""], ["3", "", "", "1, 2"]] and shown.columns == ["a", "b", "c", "d"]
    assert (
        "… 40 more rows" in repr(table([{"i": i} for i in range(100)]))
        and "… 40 more rows" in table([{"i": i} for i in range(100)])._repr_html_()
    )
    assert repr(table([])) and table([])._repr_html_()
    assert table([{"a": 1, "b": 2}], columns=["b"]).cells == [["2"]]
    with pytest.raises(FtError, match="no column 'c'.*a, b"):
        table([{"a": 1, "b": 2}], columns=["c"])


def test_fonts_fall_back_to_what_is_installed():
    # U+1D81 is in STIXGeneral, which travels with Matplotlib, and not in DejaVu Sans.
    assert pick_font(["ᶁ"])[0] == "DejaVu Sans" and len(pick_font(["ᶁ"])) == 2 and replace_missing_glyphs("ᶁ") == "ᶁ"
    bars([{"method": "ᶁ", "v": 1}], "v")._repr_html_()


def test_no_empty_boxes():
    odd = "\U0010fffd"
    assert replace_missing_glyphs(f"a{odd}b") == "a\\u10fffdb" and replace_missing_glyphs("a\u200db") == "a\u200db"
    for figure in (
        bars([{"method": odd, odd: 1}], odd, title=odd),
        curves([{"step": 1, odd: 1}], title=odd),
        plot_anatomy_rows([PART | {"name": odd, "roles": [odd]}], title=odd),
    ):
        figure._repr_html_()  # Matplotlib warns of a missing glyph, and a warning is an error here
        assert odd in figure.alt


@pytest.mark.parametrize(
    "text",
    [
        "正面 と 한국어",
        "دقة النموذج",
        "हिन्दी ไทย עברית",
        "$x^2$ & $",
        "a\nb\tc",
        "_hidden",
        "x" * 500,
        "\ud800",
        "\u202eabc",
        "",
    ],
)
def test_any_label_is_drawn(text):
    for figure in (
        bars([{"method": text, "v": 1}, {"method": "b", "v": None}], "v", title=text, baseline=0.5),
        curves([{"step": 1, text or "v": 1}, {"step": 2, text or "v": 2}], title=text),
        plot_anatomy_rows([PART | {"name": text, "roles": [text]}], title=text),
    ):
        assert figure._repr_html_().isprintable() and figure._repr_html_().encode("utf-8")


def test_figures_escape_their_alt_text():
    for figure in (
        bars([{SCRIPT: SCRIPT, "v": 1}], "v", label=SCRIPT),
        curves([{"step": 1, SCRIPT: 1}]),
        plot_anatomy_rows([PART | {"name": SCRIPT, "roles": [SCRIPT]}]),
    ):
        assert (
            "<script" not in figure._repr_html_()
            and "&lt;script&gt;" in figure._repr_html_()
            and repr(figure) == figure.alt
        )


def test_same_data_same_bytes_in_another_process():
    code = (
        "from ftkit.plot.charts import *; import hashlib; h = lambda f:"
        " hashlib.sha256(f._repr_html_().encode()).hexdigest()\nprint(h(curves([{'step': i, 'loss': 1 / (i + 1)} for i"
        " in range(90)])), h(bars([{'method': 'a', 'v': 1}], 'v')))"
    )
    assert run(code) == run(code)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_saved_files_are_the_same_twice(ending, tmp_path):
    files = [bars([{"method": "a", "v": 1}], "v").save(tmp_path / f"{name}.{ending}") for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes() and sorted(p.name for p in tmp_path.iterdir()) == [
        f"a.{ending}",
        f"b.{ending}",
    ]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    figure, old = bars([{"method": "a", "v": 1}], "v"), tmp_path / "a.png"
    old.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "_bytes", full)
    with pytest.raises(FtError, match="No space left"):
        figure.save(old)
    assert old.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FtError, match="no known extension"):
        figure.save(tmp_path / "a.gif")


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
    rows = [
        dict(step=i, epoch=0, loss=1.0 / i, norm=9, lr=1e-3, **({"valid_accuracy": i / 10} if i % 2 else {}))
        for i in range(1, 9)
    ]
    rows[3]["loss"] = math.nan
    alt = curves(pd.DataFrame(rows), title="A run").alt
    assert (
        alt == "A run: Curves over step. loss from 1 to 0.125, lowest 0.125 at step 8; valid_accuracy from 0.1 to 0.7,"
        " highest 0.7 at step 7."
    )
    assert "norm" in curves(rows, y=["norm"]).alt


def test_losses_and_scores_do_not_share_a_panel():
    rows = [
        dict(step=i, loss=3 - i, valid_loss=3.5 - i, valid_accuracy=i / 3, valid_f1=i / 4, valid_perplexity=40 - i)
        for i in range(3)
    ]
    axes = curves(rows).fig.axes
    assert [len(ax.get_lines()) for ax in axes] == [2, 2, 1]
    for ax in axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()]
        assert len(set(looks)) == len(looks), "colour is never the only sign"


def test_nothing_to_draw_is_said():
    for draw in (lambda: curves([]), lambda: bars([], "v"), lambda: plot_anatomy_rows([])):
        with pytest.raises(FtError, match="the table is empty"):
            draw()
    with pytest.raises(FtError, match="no curve to draw"):
        curves([{"step": 1, "loss": None}])
    with pytest.raises(FtError, match="'v' holds no numbers"):
        bars([{"method": "a", "v": "x"}], "v")
    with pytest.raises(FtError, match="no column 'spread'"):
        bars([{"method": "a", "v": 1}], "v", error="spread")
    with pytest.raises(FtError, match="no column 'trains'"):
        plot_anatomy_rows([{"name": "a", "kind": "block", "total": 3}])


def test_bars_are_sorted_and_say_what_is_missing():
    rows = [{"method": "a", "v": 0.5}, {"method": "b", "v": None}, {"method": "c", "v": 0.75}]
    assert bars(rows, "v").alt == "v by method: c 0.750, a 0.500, b not measured."
    assert bars(rows, "v", sort=False).alt == "v by method: a 0.500, b not measured, c 0.750."


@pytest.mark.parametrize("values", [[0, 0], [1, 1], [-1, -2], [-1, 2], [1e-9, 1e9], [5]])
def test_bars_of_any_size(values):
    rows = [{"method": str(i), "v": v, "e": 0.1 * abs(v)} for i, v in enumerate(values)]
    figure = bars(rows, "v", error="e", beside="v")
    left, right = figure.fig.axes[0].get_xlim()
    assert left <= min(values) and right > max(values) and figure._repr_html_()


def test_anatomy_shows_what_trains_by_hatching_too():
    parts = [PART, PART | {"trains": 1000}, PART | {"trains": 10, "added": 10}, PART | {"total": 0}]
    assert [patch.get_hatch() or "" for patch in plot_anatomy_rows(parts).fig.axes[0].patches] == [
        "",
        "///",
        "",
        "....",
    ]


def test_anatomy_of_many_blocks_is_folded():
    parts = [PART | {"name": f"layer.{i}", "trains": 1000 * (i > 20)} for i in range(24)]
    alt = plot_anatomy_rows(parts).alt
    assert (
        "layer.0 … 20 (21 times) 1k frozen; layer.21 … 23 (3 times) 1k trains" in alt
        and "24k parameters, 12.5% train" in alt
    )
    assert plot_anatomy_rows(parts, most=30).alt.count("frozen") == 21


def test_a_thin_share_can_be_seen_and_is_not_called_all():
    from ftkit.plot.charts import _describe_part, _state_fractions

    assert _state_fractions(PART | {"total": 10**9, "trains": 1})[1] > 0.03 and math.isclose(
        sum(_state_fractions(PART | {"trains": 500, "added": 1})), 1
    )
    assert _describe_part(PART | {"total": 10**6, "trains": 10**6 - 1}) == "99.9% trains"


def test_legends_lie_below_the_name_of_their_axis():
    "However many curves a panel has, nothing is printed over anything."
    rows = [
        {
            "step": i,
            "loss": 1.5 / i,
            "valid_loss": 1 / i,
            **{f"valid_{n}": 0.5 + 0.01 * i for n in ("accuracy", "f1", "auc", "sensitivity", "specificity")},
        }
        for i in range(1, 9)
    ]
    fig = curves(rows).fig
    fig.canvas.draw() if hasattr(fig.canvas, "get_renderer") else fig.savefig(__import__("io").BytesIO())
    for ax in fig.axes:
        legend, name = ax.get_legend().get_window_extent(), ax.xaxis.label.get_window_extent()
        assert legend.y1 <= name.y0 and legend.y0 >= 0 and ax.get_window_extent().height > 60
        assert all(t.get_window_extent().x0 >= 0 for t in ax.get_yticklabels())


HISTORIES = {
    "equal scores": [(10, 0.99), (20, 0.98995), (30, 0.99)],
    "one point": [(14, 0.55)],
    "perfect": [(1, 1.0), (2, 1.0)],
    "hopeless": [(1, 0.0), (2, 0.0)],
    "close": [(1, 0.98501), (2, 0.98502)],
    "wide": [(1, 0.02), (400, 0.97)],
    "step 0": [(0, 0.5), (12, 0.93), (24, 0.94)],
}
OTHERS = [
    [3.0, 3.0],
    [1e-7, 3e-7],
    [1.001, 1.002],
    [1e9 + 1, 1e9 + 2],
    [-5.0, 5.0],
    [1e-4, 1e3],
    [250.0, 1250.0],
    [0.25, 2.0],
]


def drawn(fig, axis):
    "Tick labels that stand inside the axis."
    low, high = sorted(getattr(fig, f"get_{axis}lim")())
    ticks = zip(getattr(fig, f"get_{axis}ticks")(), getattr(fig, f"get_{axis}ticklabels")())
    return [label.get_text() for at, label in ticks if low - 1e-9 <= at <= high + 1e-9 and label.get_text()]


@pytest.mark.parametrize("points", HISTORIES.values(), ids=HISTORIES)
def test_a_score_axis_is_honest(points):
    figure = curves([{"step": s, "valid_accuracy": v} for s, v in points])
    (ax,) = figure.fig.axes
    low, high = ax.get_ylim()
    assert 0 <= low <= min(v for _, v in points) and max(v for _, v in points) <= high <= 1 and high - low >= 0.0999
    for axis in "xy":
        assert len(set(drawn(ax, axis))) == len(drawn(ax, axis)) >= 1, drawn(ax, axis)
    assert (low > 0) == ("axis starts at" in ax.get_ylabel()) == (f"starts at {format_number(low)}" in figure.alt), (
        "a cut axis says so"
    )
    assert figure._repr_html_()


@pytest.mark.parametrize("values", OTHERS)
def test_ticks_of_any_measure_differ_and_a_flat_line_stays_flat(values):
    (ax,) = curves([{"step": i, "measure": v} for i, v in enumerate(values)]).fig.axes
    low, high = ax.get_ylim()
    assert len(set(drawn(ax, "y"))) == len(drawn(ax, "y")) >= 2, drawn(ax, "y")
    assert low <= min(values) and high >= max(values) and high - low >= 0.0999 * max(map(abs, values))
    assert (low > 0 and ax.get_yscale() == "linear") == ("axis starts at" in ax.get_ylabel())


def test_tick_labels_have_the_decimals_that_their_distance_needs():
    assert tick_labels([0.985, 0.99, 0.995]) == ["0.985", "0.990", "0.995"] and tick_labels([0, 0.5, 1]) == [
        "0.0",
        "0.5",
        "1.0",
    ]
    assert tick_labels([0, 500, 1000, 1500]) == ["0", "500", "1k", "1.5k"] and tick_labels([3]) == ["3"]
    assert len(set(tick_labels([1e6 + 1, 1e6 + 2]))) == 2 and tick_labels([2e-5, 4e-5]) == ["2e-5", "4e-5"]
    assert axis_range([0.99, 0.99], share=True) == (0.9, 1) and axis_range([0, 0], share=True) == (0, 0.1)
    assert log_ticks(2, 9) == [2, 5] and log_ticks(0.9, 1100) == [1, 10, 100, 1000]


def test_the_axis_of_bars_ends_at_one():
    rows = [{"method": "a", "accuracy": 0.99, "spread": 0.03}, {"method": "b", "accuracy": 0.5, "spread": 0.02}]
    (ax,) = bars(rows, "accuracy", error="spread").fig.axes
    assert max(ax.get_xticks()) <= 1 and ax.spines["bottom"].get_bounds()[1] <= 1
    ends = [x for bar in ax.collections for path in bar.get_paths() for x in path.vertices[:, 0]]
    assert max(ends) <= 1, "an error bar does not pass one"
    assert "0.990 ± 0.03" in {t.get_text() for t in ax.texts}
    assert len(set(drawn(ax, "x"))) == len(drawn(ax, "x")) >= 2


def test_a_single_measurement_is_a_marker():
    rows = [{"step": i, "loss": 1 / i} for i in range(1, 14)] + [{"step": 14, "loss": 0.05, "valid_accuracy": 0.6}]
    (line,) = curves(rows).fig.axes[1].get_lines()
    assert (
        line.get_marker() not in ("", "None", None)
        and line.get_markersize() > 6
        and line.get_markerfacecolor() != "white"
    )
    assert [ax.get_xlim() for ax in curves(rows).fig.axes][0] == curves(rows).fig.axes[1].get_xlim(), (
        "panels share their steps"
    )


def test_a_baseline_is_drawn_and_named():
    rows = [{"step": i, "loss": 1 / i, "valid_accuracy": 0.9 + i / 100} for i in range(1, 4)]
    figure = curves(rows, baseline={"majority-class accuracy": 0.52})
    loss, score = figure.fig.axes
    assert [list(line.get_ydata()) for line in score.get_lines()[1:]] == [[0.52, 0.52]] and len(loss.get_lines()) == 1
    assert score.get_ylim()[0] < 0.52 and "majority-class accuracy 0.52" in [
        t.get_text() for t in score.get_legend().get_texts()
    ]
    assert "majority-class accuracy, is at 0.52" in figure.alt and "horizontal" not in curves(rows).alt
    compared = bars([{"method": "a", "v": 0.8}], "v", baseline={"majority class": 0.5})
    assert (
        "majority class 0.5" in {t.get_text() for t in compared.fig.axes[0].texts}
        and "majority class, is at 0.5" in compared.alt
    )
    assert "baseline 0.5" in {
        t.get_text() for t in bars([{"method": "a", "v": 0.8}], "v", baseline=0.5).fig.axes[0].texts
    }


LONG = "LoRA(target_modules='query,value') + BitFit() + GradualUnfreeze(order='top-down')"


def test_long_labels_and_titles_are_wrapped_and_stay_inside():
    bare = "".join(LONG.split())
    figure = bars([{"method": LONG, "v": 0.5}, {"method": "b", "v": 0.7}], "v", title=f"{LONG}, {LONG}")
    figure._repr_html_()
    (ax,) = figure.fig.axes
    assert "".join(ax.get_yticklabels()[1].get_text().split()) == bare
    heading = figure.fig._suptitle
    assert "".join(heading.get_text().split()) == f"{bare},{bare}"
    assert (
        heading.get_window_extent().x1 <= figure.fig.bbox.x1
        and min(t.get_window_extent().x0 for t in ax.get_yticklabels()) >= 0
    )
    run = curves([{"step": 1, LONG: 0.5}, {"step": 2, LONG: 0.6}], title=LONG)
    run._repr_html_()
    assert (
        "".join(run.fig.axes[0].get_title(loc="left").split()) == bare
        and run.fig._suptitle.get_window_extent().x1 <= run.fig.bbox.x1
    )
    part = plot_anatomy_rows([PART | {"name": "wav2vec2.encoder.transformer.layers.11"}])
    assert "wav2vec2.encoder.transformer.layers.11" in {"".join(t.get_text().split()) for t in part.fig.axes[0].texts}


@pytest.mark.parametrize("text", ["", "x" * 500, "正面の例 " * 40, "a b " * 300, "\U0010fffd" * 50, "one"])
def test_wrapped_lines_are_no_wider_than_asked(text):
    lines = wrap(text, 20, 3).split("\n")
    assert len(lines) <= 3 and all(display_width(line) <= 20 for line in lines)


@pytest.mark.parametrize("baseline", [None, {"majority class": 0.5}])
@pytest.mark.parametrize("name", ["loss", "ᶁ loss", "x" * 60])
def test_the_legend_never_touches_the_name_of_the_axis(name, baseline):
    for title in ("", LONG):
        fig = curves(
            [
                {"step": 1, name: 0.7, "valid_loss": 0.6, "valid_accuracy": 0.5},
                {"step": 2, name: 0.6, "valid_loss": 0.7},
            ],
            title=title,
            baseline=baseline,
        ).fig
        fig.savefig(__import__("io").BytesIO(), dpi=100)
        for ax in fig.axes:
            if legend := ax.get_legend():
                assert legend.get_window_extent().y1 <= ax.xaxis.label.get_window_extent().y0


def test_labels_of_points_that_lie_close_are_moved_apart():
    from matplotlib.text import Text

    from ftkit.experiments.compare import overlap, scatter

    rows = [
        {"method": f"method {i}", "cost": 1e5 * (1 + 0.02 * i), "v": 0.8 + 0.001 * (i % 3), "e": 0.01}
        for i in range(12)
    ]
    figure = scatter(rows, "cost", "v", error="e")
    figure._repr_html_()
    texts = [t for t in figure.fig.axes[0].texts if t.get_text().startswith("method")]
    boxes = [Text.get_window_extent(t).extents for t in texts]  # without their leader lines
    assert len(texts) == 12 and not [1 for i, a in enumerate(boxes) for b in boxes[:i] if overlap(a, b)]
    assert sum(t.arrow_patch is not None for t in texts) > 3 and all(
        0 <= figure.fig.axes[0].get_ylim()[i] <= 1 for i in (0, 1)
    )


def test_what_stands_above_the_blocks_is_drawn_above_them():
    from ftkit.models.anatomy import anatomy, summary_rows
    from ftkit.testing.invariants import tiny_model

    for family, above, last in (
        ("bert", "bert.pooler.dense", ["head"]),
        ("gpt", "transformer.ln_f", []),
    ):  # GPT's head is its embedding
        cut = anatomy(tiny_model(family)[0])
        found = summary_rows(cut)
        assert [r["kind"] for r in found] == ["stem", *["block"] * len(cut.blocks), "rest", *last]
        rest = next(r for r in found if r["kind"] == "rest")
        assert rest["modules"] == [above] and rest["total"] == sum(
            p.numel() for p in cut.model.get_submodule(above).parameters()
        )
        assert sum(r["total"] for r in found) == sum(p.numel() for p in cut.model.parameters())
    assert "rest" not in [r["kind"] for r in summary_rows(anatomy(tiny_model("resnet")[0]))]


def fitted(folder=None, **options):
    import ftkit as ft
    from ftkit.datasets.reviews import reviews

    data = reviews(60, difficulty=1)
    return ft.finetune(
        "bert-mini",
        data,
        "bitfit",
        **dict(valid=0.2, epochs=2, batch_size=16, precision="fp32", cache_features=False, output_dir=folder) | options,
    )


def test_step_0_is_validated_on_demand_and_changes_nothing_else():
    import torch

    same = dict(execution=ft.ExecutionConfig())
    plain, started = fitted(**same), fitted(eval_on_start=True, **same)
    first = started.steps[0]
    assert set(first) == {"step", "epoch", "valid_accuracy", "valid_f1", "valid_loss"} and first["step"] == 0
    assert [h["step"] for h in plain.steps] == [h["step"] for h in started.steps[1:]] == list(range(1, 7))
    assert [h["loss"] for h in plain.steps] == [
        h["loss"] for h in started.steps[1:]
    ] and plain.metrics == started.metrics
    assert all(
        torch.equal(a, b) for a, b in zip(plain.model.state_dict().values(), started.model.state_dict().values())
    )
    score = next(ax for ax in started.plot().fig.axes if len(ax.get_lines()) == 3)
    assert (
        list(score.get_lines()[0].get_xdata()) == [0, 3, 6]
        and score.get_lines()[2].get_ydata()[0] == started.resources["majority_baseline"] == 0.5
    )
    assert "score" not in curves(plain.steps, y=["loss"]).alt


def test_step_0_stands_once_in_the_history_of_a_resumed_run(tmp_path):
    import torch

    class StopAfter(ft.Callback):
        def after_step(self, learner):
            learner.stop = learner.step_count == 3

    same = dict(execution=ft.ExecutionConfig(), eval_on_start=True)
    whole = fitted(tmp_path / "whole", **same)
    assert ft.load_run(tmp_path / "whole").steps == [pytest.approx(row) for row in whole.steps]
    half = fitted(tmp_path / "half", **same, save_steps=2, callbacks=[StopAfter()])
    assert half.steps[-1]["step"] == 3
    again = ft.resume(tmp_path / "half")
    assert (
        [h["step"] for h in again.steps] == list(range(7))
        and again.steps[0] == whole.steps[0]
        and again.metrics == whole.metrics
    )
    assert all(torch.equal(a, b) for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values()))


def test_step_0_without_data_to_validate_on_is_refused():
    with pytest.raises(FtError, match="eval_on_start=True needs validation data"):
        fitted(valid=None, eval_on_start=True)
