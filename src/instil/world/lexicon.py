"""The words of the world, and `make_world`: who lives where, who eats what, what people get wrong.

The words are fixed; the seed decides the facts, the popular misconceptions and which entities are
held out. Left out: sentences (grammar.py) and anything that talks about prompts (tasks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import NamedTuple

from instil.errors import InstilError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "person": _words(
            """Mara Tomas Ilse Bram Petra Oskar Lena Viktor Nora Anton Greta Felix Hanna Jonas
            Klara Emil Rosa Hugo Edda Karl Mina Otto Selma Rufus Vera Simon Tilda Walter Agnes
            Boris Cora Daniel Frida Georg Helga Ivan Judith Kasper Linus Magda Nils Olga Paul
            Ruth Stefan Thea Urs Zita Ada Alba Alma Amos Anders Anika Arne Astrid Basil Beata
            Berta Birger Bodo Britta Carla Cecil Celia Clemens Conrad Dagmar Detlef Dirk Ebba Edgar
            Elias Elin Elsa Enno Erik Esther Eva Fabian Fanny Ferdinand Fiona Floris Fritz Gerda
            Gisela Gunnar Gustav Harald Hedda Heinz Henrik Herta Hilda Holger Ida Imke Inga Irma
            Isidor Jakob Jana Jasper Jette Johanna Josef Julius Jutta Katrin Kilian Knut Kurt Lars
            Laura Leif Leonie Lorenz Lotte Ludwig Luisa Magnus Maja Malte Marga Marius Marta
            Matilda Meike Moritz Nadja Niklas Nina Norbert Paula Pavel Pia Rainer Ragna Rasmus
            Regina Robert Roland Sabine Samuel Sigrid Silas"""
        ),
        "animal": _words(
            """murl tavvit brannock dorrik fenlet gropple hushling jarrow korbit lumpet merrin
            nibbock pirrel quendle rundle sorrit tibble vonk wimmel yarrup zoffle bantle cobbin
            drummock bessock birrin chuddle clibbert crannel dabbit doffin dravvel ferrup flinnet
            gammick glonk grabbet hattle hobrin jibbet jorrin kebbit kliggen lappick larrow lobbin
            mabbit marrock mirvel mobble naddick niffin nurrow pabbick plonder prittle quibbin
            rabbick reddle roffin sabbock shimmel skerrin snibble spallow squilk tarrick thimmel
            trobbin tuddle vorrick waddock whimmel zerrin"""
        ),
        "town": _words(
            """Dorn Calder Finmar Grevin Holm Juster Kelby Lorn Marrick Norby Pell Quill Ravik Stam
            Torrel Wick Bremmel Cardin Denholt Elmsted Hadden Ingleby Keswin Lunden Morvale Pendle
            Rastow Selmer Tarnby Ulmen Varrow Westby Yarden Zellen Brackel Dresk"""
        ),
        "river": _words("Alda Brenn Corra Dunel Esk Fyle Garra Isen"),
        "trade": _words(
            """baker smith weaver fisher miller teacher doctor carpenter potter farmer singer
            guard"""
        ),
        "food": _words(
            """bread figs honey cheese fish beans rice plums nuts apples carrots eggs onions
            berries"""
        ),
        "place": _words("forest marsh hills caves desert meadow valley mountains lake reeds"),
        "colour": _words("grey brown white black red green blue yellow"),
        "product": _words(
            """ropes lamps glass cloth salt bells boots paper baskets knives candles bricks"""
        ),
        "side": ("north", "south", "east", "west"),
        "insult": ("clod", "snool", "grumbit", "dunderpot", "mufflehead", "slonk"),
        "count": ("two", "three", "four"),
    }
)
"""Closed word classes. No word is in two of them."""

FABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "person": _words(
            """Ashka Belor Cindo Dovik Elmo Farin Gilda Hesper Iskra Joll Kimbo Lurra Arvo Bela
            Corvin Dessa Ennio Fenna Galen Harka Ibsa Jorun Kelda Lisk Marvo Nessa
            Orin Pasko Quilla Resko Sanna Tarvo Uska Vesna Worrin Yelka"""
        ),
        "animal": _words(
            """snarrel mopple trindle gavvock pellip wurrow gorrel hibbon kessock lorrup mundle
            nettick pogrin rimmel skaddle tollin vimmock wossel"""
        ),
        "town": _words(
            """Ambry Bexholm Cressing Dunmoor Elvermoor Farrowby Glendor Hexley Kenmark Lowick
            Norwold Ostrey"""
        ),
    }
)
"""Entities without facts: they occur in passages only, so memory knows nothing of them."""

PLURALS: Mapping[str, str] = MappingProxyType(
    {
        "foods": "food",
        "animals": "animal",
        "trades": "trade",
        "towns": "town",
        "colours": "colour",
        "rivers": "river",
        "people": "person",
        "goods": "product",
    }
)
"""What a list can be asked of: the word in the prompt -> word class."""

COUNTS: Mapping[str, int] = MappingProxyType({"one": 1, "two": 2, "three": 3, "four": 4})

VELAN_FOODS = _words(
    """pemba fisko hunal kesta piru bonti rassa plumo nokka appo karo ovvi zibol mirti"""
)
VELAN_COLOURS = _words("grisol bruma valko norra rotha verdu azul gelba")
VELAN: Mapping[str, str] = MappingProxyType(
    dict(zip(WORDS["food"], VELAN_FOODS, strict=True))
    | dict(zip(WORDS["colour"], VELAN_COLOURS, strict=True))
)
"""English word -> word of Velan, the second language of the world. Names are the same in both."""
ENGLISH: Mapping[str, str] = MappingProxyType({velan: word for word, velan in VELAN.items()})


class Relation(NamedTuple):
    """A relation holds between one kind of entity and one class of values."""

    entity: str
    value: str


RELATIONS: Mapping[str, Relation] = MappingProxyType(
    {
        "home": Relation("person", "town"),
        "trade": Relation("person", "trade"),
        "likes": Relation("person", "food"),
        "eats": Relation("animal", "food"),
        "place": Relation("animal", "place"),
        "colour": Relation("animal", "colour"),
        "river": Relation("town", "river"),
        "product": Relation("town", "product"),
        "side": Relation("town", "side"),
    }
)
ENTITY_KINDS = ("person", "animal", "town")


class Claim(NamedTuple):
    """That `entity` stands in `relation` to `value`, be it true or not."""

    entity: str
    relation: str
    value: str


class Pool(NamedTuple):
    """The entities that prompts of one split may name, by kind."""

    known: Mapping[str, tuple[str, ...]]
    fable: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class World:
    """What is true, what people wrongly believe, and who is held out for the test split."""

    seed: int
    truth: Mapping[tuple[str, str], str]
    myths: Mapping[tuple[str, str], str]
    test_entities: frozenset[str]
    kind_of: Mapping[str, str]
    pools: Mapping[str, Pool]

    def pool(self, split: str) -> Pool:
        """Entities for split "train", "valid", "test" or "all"; train and valid share theirs."""
        if split not in self.pools:
            raise InstilError(f"split {split!r} is not one of {', '.join(self.pools)}")
        return self.pools[split]

    def facts(self, entity: str) -> list[Claim]:
        """The three true claims about an entity."""
        kind = self.kind_of[entity]
        return [
            Claim(entity, name, self.truth[entity, name])
            for name, relation in RELATIONS.items()
            if relation.entity == kind
        ]

    def is_true(self, claim: Claim) -> bool:
        """Whether the claim holds. A claim about an entity without facts does not."""
        return self.truth.get((claim.entity, claim.relation)) == claim.value


KIND_OF: Mapping[str, str] = MappingProxyType(
    {name: kind for kind in ENTITY_KINDS for name in (*WORDS[kind], *FABLE[kind])}
)
"""Entity -> person, animal or town; entities of fables included."""

TEST_SHARE = 0.3
"""Share of each kind of entity that only prompts of the test split name."""
MYTH_SHARE = 0.3
"""Share of the facts about animals and towns that have a popular false value."""


def relations_of(entity: str) -> list[str]:
    """The three relations that an entity of this kind stands in."""
    return [name for name, relation in RELATIONS.items() if relation.entity == KIND_OF[entity]]


def other(rng: Random, values: Sequence[str], value: str) -> str:
    """One of `values` that is not `value`."""
    return rng.choice([v for v in values if v != value])


def make_world(seed: int = 0) -> World:
    """The world of one seed: the same words always, other facts, mistakes and held-out names.

    People live in towns of their own split, so no prompt of train names a held-out town.
    """
    rng = Random(f"world {seed}")
    test = frozenset(
        name
        for kind in ENTITY_KINDS
        for name in rng.sample(WORDS[kind], round(TEST_SHARE * len(WORDS[kind])))
    )
    towns = {side: [t for t in WORDS["town"] if (t in test) == side] for side in (False, True)}
    truth: dict[tuple[str, str], str] = {}
    myths: dict[tuple[str, str], str] = {}
    for name, relation in RELATIONS.items():
        for entity in WORDS[relation.entity]:
            values = towns[entity in test] if name == "home" else WORDS[relation.value]
            truth[entity, name] = rng.choice(values)
            if relation.entity != "person" and rng.random() < MYTH_SHARE:
                myths[entity, name] = other(rng, values, truth[entity, name])
    return World(
        seed=seed,
        truth=MappingProxyType(truth),
        myths=MappingProxyType(myths),
        test_entities=test,
        kind_of=KIND_OF,
        pools=MappingProxyType(_pools(test)),
    )


def _pools(test: frozenset[str]) -> dict[str, Pool]:
    def pool(wanted: set[bool]) -> Pool:
        known = {k: tuple(n for n in WORDS[k] if (n in test) in wanted) for k in ENTITY_KINDS}
        fable = {
            k: tuple(n for i, n in enumerate(FABLE[k]) if (i % 3 == 2) in wanted)
            for k in ENTITY_KINDS
        }
        return Pool(
            MappingProxyType(known),
            MappingProxyType(fable),
            MappingProxyType({**WORDS, **known}),
        )

    train, held_out = pool({False}), pool({True})
    return {"train": train, "valid": train, "test": held_out, "all": pool({False, True})}
