"""Real numbers (vega-datasets) as charts and tables, and questions whose answers are known."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import Any

from quickstart_data.drawing import Chart

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@cache
def records(name: str) -> list[dict[str, Any]]:
    """The rows of one vega dataset."""
    from vega_datasets import local_data

    return getattr(local_data, name)().to_dict("records")


def mean(values: Sequence[float]) -> float:
    """To one decimal, as it is printed."""
    return round(sum(values) / len(values), 1)


def all_charts() -> list[Chart]:
    """Every chart that can be drawn, in an order that mixes the tables."""
    charts = [
        *stock_charts(), *weather_charts(), *employment_charts(), *energy_charts(),
        *barley_charts(), *car_charts(), *temperature_charts(),
    ]  # fmt: skip
    Random("charts").shuffle(charts)
    return charts


def stock_charts() -> Iterator[Chart]:
    """A share's price at each month of a year."""
    series: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in records("stocks"):
        series[row["symbol"], row["date"].year].append(row)
    for (symbol, year), rows in series.items():
        if len(rows) >= 6:
            yield Chart(
                kind="line",
                title=f"{symbol} share price, {year}",
                quantity="USD",
                labels=tuple(MONTHS[row["date"].month - 1] for row in rows),
                values=tuple(float(row["price"]) for row in rows),
            )


def weather_charts() -> Iterator[Chart]:
    """Seattle: kinds of weather in a month, rain in each month of a year."""
    days: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in records("seattle_weather"):
        days[row["date"].year, row["date"].month].append(row)
    for (year, month), rows in days.items():
        kinds = sorted({row["weather"] for row in rows})
        totals = [sum(row["weather"] == kind for row in rows) for kind in kinds]
        title = f"Weather in Seattle, {MONTHS[month - 1]} {year}"
        for kind in ("bar", "pie"):
            yield Chart(
                kind=kind, title=title, quantity="days",
                labels=tuple(kinds), values=tuple(map(float, totals)),
            )  # fmt: skip
    for year in sorted({year for year, _ in days}):
        for column, name in (("precipitation", "Rain"), ("wind", "Wind"), ("temp_max", "Highs")):
            yield Chart(
                kind="line" if column == "temp_max" else "bar",
                title=f"{name} in Seattle, {year}, mean of the month",
                quantity={"precipitation": "mm", "wind": "m/s", "temp_max": "degrees C"}[column],
                labels=MONTHS,
                values=tuple(
                    mean([row[column] for row in days[year, month]]) for month in range(1, 13)
                ),
            )


def employment_charts() -> Iterator[Chart]:
    """US: jobs by sector in one month."""
    sectors = ("construction", "manufacturing", "information", "utilities", "government")
    for row in records("us_employment")[::2]:
        yield Chart(
            kind="barh",
            title=f"US jobs by sector, {str(row['month'])[:7]}",
            quantity="thousands",
            labels=sectors,
            values=tuple(float(row[sector]) for sector in sectors),
        )


def energy_charts() -> Iterator[Chart]:
    """Iowa: electricity by source in one year."""
    years: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in records("iowa_electricity"):
        years[row["year"].year].append(row)
    for year, rows in years.items():
        for kind in ("bar", "pie"):
            yield Chart(
                kind=kind,
                title=f"Electricity made in Iowa, {year}",
                quantity="GWh",
                labels=tuple(row["source"] for row in rows),
                values=tuple(float(row["net_generation"]) for row in rows),
            )


def barley_charts() -> Iterator[Chart]:
    """Minnesota: yields of a variety at each site."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in records("barley"):
        groups[row["variety"], row["year"]].append(row)
    for (variety, year), rows in groups.items():
        for kind in ("bar", "barh"):
            yield Chart(
                kind=kind,
                title=f"Barley {variety}, {year}",
                quantity="bushels per acre",
                labels=tuple(row["site"] for row in rows),
                values=tuple(round(float(row["yield"]), 1) for row in rows),
            )


def car_charts() -> Iterator[Chart]:
    """Means over the cars of a year or an origin."""
    columns = {"Horsepower": "hp", "Weight_in_lbs": "lbs", "Miles_per_Gallon": "mpg"}
    for column, unit in columns.items():
        for by in ("Origin", "Cylinders"):
            for year in sorted({row["Year"].year for row in records("cars")}):
                groups: dict[str, list[float]] = defaultdict(list)
                for row in records("cars"):
                    if row["Year"].year == year and row[column] == row[column]:  # not NaN
                        groups[str(row[by])].append(float(row[column]))
                if len(groups) >= 2:
                    names = tuple(sorted(groups))
                    yield Chart(
                        kind="bar",
                        title=f"{column.replace('_', ' ')} by {by.lower()}, {year}",
                        quantity=unit,
                        labels=names,
                        values=tuple(mean(groups[name]) for name in names),
                    )


def temperature_charts() -> Iterator[Chart]:
    """San Francisco and Seattle: temperature through one day, every third hour."""
    for name, city in (("sf_temps", "San Francisco"), ("seattle_temps", "Seattle")):
        rows = records(name)
        for day in range(0, 340, 7):
            hours = rows[24 * day : 24 * day + 24 : 3]
            date = hours[0]["date"]
            yield Chart(
                kind="line",
                title=f"{city}, {date:%d %b %Y}",
                quantity="degrees F",
                labels=tuple(f"{row['date']:%H}h" for row in hours),
                values=tuple(round(float(row["temp"]), 1) for row in hours),
            )


def tell(value: float) -> str:
    """A number as people write it."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def questions(chart: Chart, rng: Random, *, number: int) -> list[tuple[str, str]]:
    """At most `number` questions about a chart, with the only answers its numbers allow."""
    pairs = dict(zip(chart.labels, chart.values, strict=True))
    high, low = max(pairs, key=pairs.__getitem__), min(pairs, key=pairs.__getitem__)
    one, other = rng.sample(list(pairs), 2)
    asked = [
        (f"What is the value of {one}, in {chart.quantity}?", f"{tell(pairs[one])}."),
        (
            f"Is {one} greater than {other}?",
            "Yes." if pairs[one] > pairs[other] else "No.",
        ),
        (
            f"What is the difference between {one} and {other}?",
            f"{tell(round(abs(pairs[one] - pairs[other]), 1))}.",
        ),
        ("How many categories does the chart show?", f"{len(pairs)}."),
        ("What is the title of the chart?", f"{chart.title}."),
    ]
    if chart.values.count(pairs[high]) == 1:
        asked.append(("Which category has the highest value?", f"{high}."))
    if chart.values.count(pairs[low]) == 1:
        asked.append(("Which category has the lowest value?", f"{low}."))
    return rng.sample(asked, min(number, len(asked)))


def reasoning(chart: Chart) -> tuple[str, str]:
    """A question and its answer by steps, in the four tags of LLaVA-CoT."""
    pairs = sorted(zip(chart.values, chart.labels, strict=True), reverse=True)
    (top, first), (next_top, second) = pairs[0], pairs[1]
    gap = round(top - next_top, 1)
    question = f"By how much does {first} exceed {second}?"
    answer = (
        f"<SUMMARY> I will read the two values from the chart and subtract. </SUMMARY>\n\n"
        f"<CAPTION> The chart is titled '{chart.title}' and shows {len(pairs)} values in "
        f"{chart.quantity}. </CAPTION>\n\n"
        f"<REASONING> {first} stands at {tell(top)}. {second} stands at {tell(next_top)}. "
        f"The difference is {tell(top)} - {tell(next_top)} = {tell(gap)}. </REASONING>\n\n"
        f"<CONCLUSION> {tell(gap)} </CONCLUSION>"
    )
    return question, answer


def tables(rng: Random, *, number: int, money: bool) -> list[dict[str, Any]]:
    """`number` different cut-outs of a table: title, header, rows of text, questions with answers.

    Args:
        rng: chooses the rows.
        number: how many.
        money: share prices with arithmetic (as TAT-QA asks); else airports and cars, looked up.
    """
    made: list[dict[str, Any]] = []
    while len(made) < number:
        if money:
            symbol = rng.choice(["MSFT", "AMZN", "IBM", "AAPL"])
            rows = [row for row in records("stocks") if row["symbol"] == symbol]
            at = rng.randrange(len(rows) - 6)
            cut = rows[at : at + 6]
            names = [f"{row['date']:%b %Y}" for row in cut]
            prices = [float(row["price"]) for row in cut]
            gain = round(prices[-1] - prices[0], 2)
            asked = [
                (f"What was the price in {names[2]}?", f"{prices[2]:.2f}."),
                (f"What was the change from {names[0]} to {names[-1]}?", f"{gain:.2f}."),
                ("In which month was the price highest?", f"{names[prices.index(max(prices))]}."),
            ]
            cells = [[name, f"{price:.2f}"] for name, price in zip(names, prices, strict=True)]
            title, header = f"{symbol}, price per share", ["Month", "USD"]
        elif rng.random() < 0.5:
            cut = rng.sample(records("airports"), 5)
            cells = [[row["iata"], str(row["name"])[:22], str(row["state"])] for row in cut]
            title, header = "Airports", ["Code", "Name", "State"]
            asked = [
                (f"In which state is {cells[1][1]}?", f"{cells[1][2]}."),
                (f"What is the code of {cells[3][1]}?", f"{cells[3][0]}."),
            ]
        else:
            cut = rng.sample(records("cars"), 6)
            cells = [[str(row["Name"])[:20], str(row["Cylinders"]), row["Origin"]] for row in cut]
            title, header = "Cars", ["Name", "Cylinders", "Origin"]
            total = sum(row[2] == "USA" for row in cells)
            asked = [
                (f"Where does the {cells[0][0]} come from?", f"{cells[0][2]}."),
                (f"How many cylinders does the {cells[4][0]} have?", f"{cells[4][1]}."),
                ("How many of the cars come from the USA?", f"{total}."),
            ]
        table = {"title": title, "header": header, "rows": cells, "questions": asked}
        if table not in made:
            made.append(table)
    return made
