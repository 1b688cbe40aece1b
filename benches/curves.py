"""The plots of docs/performance.md, from what `growth` and `flat` of benches/figures have found (needs matplotlib)."""

import json


def draw(folder, kept, cost):
    """Draws what is in `kept`. `cost`: the CPU time of a report's rounds."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    def load(name):
        return json.loads((kept / f"{name}.json").read_text())

    def median(values):
        return sorted(values)[len(values) // 2]

    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "carillon"})
    sizes = [1000, 5000, 18000]
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for way, colour in (("floor", "#999999"), ("node", "#1769aa")):
        axes.plot(sizes, [median(cost(load(f"sessions-{size}"), way)) for size in sizes], "o-", color=colour, label=way)
    axes.set(xlabel="sessions", ylabel="µs CPU per delivery", ylim=(0, None), title="One event at a time")
    axes.legend(frameon=False)
    figure.savefig(folder / "sessions.svg", metadata={"Date": None})
    bars = {
        "floor": median(cost(load("flat"), "floor")),
        "lone": median(cost(load("lone"))),
        "10,000 topics": median(cost(load("topics-10000"))),
        "flat out": median(cost(load("flat"))),
    }
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    axes.barh(list(bars), list(bars.values()), color=["#999999"] + ["#1769aa"] * 3)
    axes.bar_label(axes.containers[0], fmt="%.2f", padding=4)
    axes.invert_yaxis()
    axes.set(xlabel="µs CPU per delivery", title="10,000 sessions")
    figure.savefig(folder / "ways.svg", metadata={"Date": None})
