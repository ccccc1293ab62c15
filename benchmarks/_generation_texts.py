"""The texts of `generation.py`: tasks in words and numbers, each a prompt and its answer, made by rule.

A prompt begins with a letter that names the task and ends with "=". German letters beyond a to z are written as two,
as is usual where they are missing ("fuenf", "maerz").
"""

from __future__ import annotations

import random
from calendar import monthrange
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

END = "\n"
"""Ends an answer, and stands before every prompt."""
CHARACTERS = END + " -=0123456789abcdefghijklmnopqrstuvwxyz"

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = (
    "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)  # fmt: skip
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
ORDINALS |= {"twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}

GERMAN_ONES = (
    "null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun", "zehn",
    "elf", "zwoelf", "dreizehn", "vierzehn", "fuenfzehn", "sechzehn", "siebzehn", "achtzehn",
    "neunzehn",
)  # fmt: skip
GERMAN_TENS = (
    "null", "zehn", "zwanzig", "dreissig", "vierzig", "fuenfzig", "sechzig", "siebzig", "achtzig",
    "neunzig",
)  # fmt: skip
GERMAN_MONTHS = (
    "januar", "februar", "maerz", "april", "mai", "juni", "juli", "august", "september", "oktober",
    "november", "dezember",
)  # fmt: skip
GERMAN_ORDINALS = {1: "erster", 3: "dritter", 7: "siebter", 8: "achter"}


class Text(NamedTuple):
    """What is given, and what is to be generated."""

    prompt: str
    answer: str


class Date(NamedTuple):
    """A day of the Gregorian calendar."""

    year: int
    month: int
    day: int

    def __str__(self) -> str:
        return f"{self.year}-{self.month:02}-{self.day:02}"


def english(number: int) -> str:
    """Return a number below 10,000 in words."""
    words = []
    for unit, name in ((1000, "thousand"), (100, "hundred")):
        if number >= unit:
            words += [ONES[number // unit], name]
            number %= unit
    if number >= 20:
        words.append(TENS[number // 10])
        number %= 10
    if number or not words:
        words.append(ONES[number])
    return " ".join(words)


def english_date(date: Date) -> str:
    """Return "the twenty first of march 1987", for example."""
    *before, last = english(date.day).split()
    day = " ".join([*before, ORDINALS.get(last, f"{last}th")])
    return f"the {day} of {MONTHS[date.month - 1]} {date.year}"


def german(number: int) -> str:
    """Return a number below 100 in words."""
    if number < 20:
        return GERMAN_ONES[number]
    tens, ones = divmod(number, 10)
    if ones == 0:
        return GERMAN_TENS[tens]
    unit = "ein" if ones == 1 else GERMAN_ONES[ones]
    return f"{unit}und{GERMAN_TENS[tens]}"


def german_date(date: Date) -> str:
    """Return "einundzwanzigster maerz 1987", for example."""
    ending = "ter" if date.day < 20 else "ster"
    day = GERMAN_ORDINALS.get(date.day, f"{german(date.day)}{ending}")
    return f"{day} {GERMAN_MONTHS[date.month - 1]} {date.year}"


class Dates(NamedTuple):
    """All days of four centuries, in four parts without a common one."""

    base: list[Date]
    """The base learns from these, and from no other."""
    training: list[Date]
    held_back: list[Date]
    """Learning rates are chosen by these."""
    test: list[Date]


@cache
def dates() -> Dates:
    """Return the parts, which are always the same."""
    days = [
        Date(year, month, day + 1)
        for year in range(1700, 2100)
        for month in range(1, 13)
        for day in range(monthrange(year, month)[1])
    ]
    random.Random(0).shuffle(days)  # noqa: S311, nothing here is secret
    tenth = len(days) // 10
    return Dates(days[: 6 * tenth], days[6 * tenth : 8 * tenth], days[8 * tenth : 9 * tenth], days[9 * tenth :])


def in_german(date: Date) -> Text:
    """Return the task that the base is adapted to: a prompt of the mixture, answered in another language."""
    return Text(f"d{date}=", german_date(date))


def mixture(count: int, seed: int) -> list[Text]:
    """Return texts of the five tasks that the base learns, in equal shares and in random order."""
    rng, days = random.Random(seed), dates().base  # noqa: S311, nothing here is secret
    makers: tuple[Callable[[], Text], ...] = (
        lambda: _number(rng),
        lambda: _words(rng),
        lambda: _spoken(rng.choice(days)),
        lambda: _written(rng.choice(days)),
        lambda: _reversed(rng),
    )
    return [rng.choice(makers)() for _ in range(count)]


def _number(rng: random.Random) -> Text:
    number = rng.randrange(10 ** rng.randint(1, 4))
    return Text(f"n{number}=", english(number))


def _words(rng: random.Random) -> Text:
    number = rng.randrange(10 ** rng.randint(1, 4))
    return Text(f"w{english(number)}=", str(number))


def _spoken(date: Date) -> Text:
    return Text(f"d{date}=", english_date(date))


def _written(date: Date) -> Text:
    return Text(f"f{date}=", f"{date.day} {MONTHS[date.month - 1]} {date.year}")


def _reversed(rng: random.Random) -> Text:
    letters = "".join(rng.choices(CHARACTERS[14:], k=rng.randint(3, 10)))
    return Text(f"r{letters}=", letters[::-1])
