"""The words of the toy world: what its markets sell, and the grammar in which items speak of themselves.

Grocery and pantry speak one language, so that what is learned of flavours, diets and families in one holds in the other, while
their brands differ. Films speak the same grammar about other things. All names of brands are invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: the tastes, and the notes that they look for
NOTES = ("sweet", "fresh", "calm", "bold")


@dataclass(frozen=True)
class Note:
    """What one taste looks for: moods are words of one meaning, of which a text holds exactly one."""

    moods: tuple[str, ...]
    flavours: Mapping[str, str]  # flavour -> how a sentence speaks of it


@dataclass(frozen=True)
class Family:
    """A kind of thing."""

    category: str
    complement: str  # the family that goes with it
    flavours: tuple[str, ...]
    things: tuple[str, ...]  # other names for it
    details: tuple[str, ...]
    sizes: tuple[str, ...]
    price: float


@dataclass(frozen=True)
class Language:
    """The grammar of one domain; slots are filled for each item."""

    title: str
    sentences: tuple[tuple[str, ...], ...]
    notes: Mapping[str, Note]
    diets: Mapping[str, tuple[str, ...]]
    families: Mapping[str, Family]
    places: tuple[str, ...]


@dataclass(frozen=True)
class Market:
    """Who sells there, and in which language."""

    language: str
    brands: tuple[str, ...]


DRINK = ("20 bags", "40 bags", "100 g")
BOTTLE = ("330 ml", "500 ml", "1 litre", "pack of 6")
BOX = ("150 g", "200 g", "pack of 4", "pack of 12")

GROCERIES = Language(
    title="{brand} {Flavour} {thing}, {diet}, {size}",
    sentences=(
        (
            "A {mood} {family} with {scene}.",
            "{brand} makes this {mood} {family} with {scene}.",
            "This {family} brings {scene} to the table: {mood} from start to finish.",
            "Our {flavour} {family} is made with {scene}, for a {mood} moment.",
            "With {scene}, this {mood} {family} is one to share.",
            "Looking for something {mood}? Try our {thing} with {scene}.",
        ),
        ("{detail}. It is {claim}.", "It is {claim}. {detail}.", "{claim}. {detail}.", "{detail}. Also: {claim}."),
        (
            "Made by {brand} in small batches.",
            "Keep in a cool and dry place.",
            "From the {brand} kitchen to yours.",
            "Comes as {size}.",
            "A small gift for a good friend.",
            "Packed in recycled paper.",
            "Loved by the whole household.",
        ),
    ),
    notes={
        "sweet": Note(
            ("indulgent", "decadent", "cosy"),
            {"chocolate": "rich cocoa", "caramel": "slow-cooked caramel", "maple": "dark maple syrup", "vanilla": "real vanilla pods"},
        ),
        "fresh": Note(
            ("zesty", "sunny", "breezy"),
            {
                "lemon": "bright lemon peel",
                "berry": "ripe red berries",
                "mango": "golden mango",
                "peach": "sun-ripened peach",
                "apple": "crisp apple",
            },
        ),
        "calm": Note(
            ("soothing", "restful", "mellow"),
            {"chamomile": "whole chamomile flowers", "mint": "garden mint", "lavender": "a hint of lavender", "rosemary": "sprigs of rosemary"},
        ),
        "bold": Note(
            ("fiery", "punchy", "daring"),
            {
                "ginger": "fresh ginger root",
                "chili": "a pinch of red chili",
                "cinnamon": "ground cinnamon bark",
                "sea salt": "flakes of sea salt",
                "black pepper": "cracked black pepper",
            },
        ),
    },
    diets={
        "gluten free": ("free from gluten", "made without wheat or gluten"),
        "organic": ("certified organic", "grown on organic farms"),
        "sugar free": ("free of added sugar", "made without any sugar"),
        "vegan": ("fully vegan", "vegan, with nothing from animals"),
        "fair trade": ("fairly traded with small farmers", "fair trade from field to shelf"),
    },
    families={
        "black tea": Family(
            "drinks",
            "shortbread",
            ("maple", "vanilla", "lemon", "peach", "berry", "mint", "lavender", "ginger", "cinnamon"),
            ("Black Tea", "Breakfast Tea"),
            ("Steep the dark leaves for four minutes", "A strong cup of tea for the morning", "Good with a splash of milk"),
            DRINK,
            4.5,
        ),
        "herbal tea": Family(
            "drinks",
            "hand cream",
            ("maple", "vanilla", "lemon", "berry", "apple", "chamomile", "mint", "lavender", "ginger", "cinnamon"),
            ("Herbal Tea", "Herb Infusion"),
            ("An infusion of herbs without caffeine", "Brew the herbs in hot water for five minutes", "A warm cup of herbs for the evening"),
            DRINK,
            4.8,
        ),
        "coffee": Family(
            "drinks",
            "dark chocolate",
            ("chocolate", "caramel", "vanilla", "berry", "lavender", "mint", "cinnamon", "ginger", "sea salt"),
            ("Ground Coffee", "Roast Coffee"),
            ("Roasted beans, ground for the filter", "A medium roast for espresso and press", "Arabica beans with a full body"),
            ("250 g", "500 g", "1 kg"),
            8.0,
        ),
        "juice": Family(
            "drinks",
            "granola",
            ("maple", "vanilla", "lemon", "berry", "mango", "peach", "apple", "mint", "rosemary", "ginger", "chili"),
            ("Juice", "Pressed Juice"),
            ("Pressed from whole fruit and gently bottled", "Shake the bottle and serve it cold", "A glass of fruit for breakfast"),
            BOTTLE,
            3.5,
        ),
        "coconut water": Family(
            "drinks",
            "snack bar",
            ("chocolate", "vanilla", "lemon", "mango", "peach", "berry", "mint", "lavender", "ginger", "sea salt"),
            ("Coconut Water", "Young Coconut Water"),
            ("Tapped from young green coconuts", "Full of natural electrolytes after sport", "Water of coconuts, never from concentrate"),
            BOTTLE,
            3.0,
        ),
        "snack bar": Family(
            "snacks",
            "herbal tea",
            ("chocolate", "caramel", "maple", "vanilla", "berry", "apple", "mint", "lavender", "ginger", "sea salt", "chili"),
            ("Snack Bar", "Energy Bar"),
            ("Oats, nuts and dates pressed into a bar", "A bar that fits in any pocket", "Energy for a long walk"),
            BOX,
            5.0,
        ),
        "dark chocolate": Family(
            "snacks",
            "herbal tea",
            ("caramel", "maple", "vanilla", "berry", "lemon", "mint", "lavender", "ginger", "chili", "sea salt"),
            ("Dark Chocolate", "Chocolate Tablet"),
            ("Seventy percent cacao in thin squares", "A tablet of dark cacao that snaps cleanly", "Stone-ground cacao beans"),
            ("80 g", "100 g", "3 x 100 g"),
            4.0,
        ),
        "shortbread": Family(
            "snacks",
            "herbal tea",
            ("chocolate", "caramel", "vanilla", "maple", "lemon", "apple", "lavender", "rosemary", "ginger", "cinnamon"),
            ("Shortbread", "Shortbread Fingers"),
            ("Baked until crumbly and golden", "Crunchy fingers for the biscuit tin", "Baked with oats after an old recipe"),
            BOX,
            3.8,
        ),
        "crispbread": Family(
            "snacks",
            "fruit spread",
            ("maple", "caramel", "lemon", "apple", "rosemary", "lavender", "sea salt", "chili", "black pepper"),
            ("Crispbread", "Rye Crispbread"),
            ("Thin and seeded, baked twice", "Slices that carry any topping", "A savoury crunch for the cheese board"),
            BOX,
            3.2,
        ),
        "granola": Family(
            "breakfast",
            "juice",
            ("chocolate", "maple", "vanilla", "berry", "apple", "mango", "rosemary", "mint", "cinnamon", "ginger"),
            ("Granola", "Baked Muesli"),
            ("Clusters of oats and seeds for the breakfast bowl", "Toasted oats with almonds", "Serve with yogurt or milk"),
            ("350 g", "500 g", "1 kg"),
            6.0,
        ),
        "fruit spread": Family(
            "breakfast",
            "black tea",
            ("maple", "vanilla", "berry", "peach", "apple", "mango", "lemon", "lavender", "rosemary", "ginger", "black pepper"),
            ("Fruit Spread", "Jam"),
            ("Fruit simmered in copper pots for your toast", "Spread it on bread or stir it into porridge", "A jar of jam with more fruit than most"),
            ("220 g", "340 g"),
            4.2,
        ),
        "hand soap": Family(
            "care",
            "hand cream",
            ("maple", "vanilla", "lemon", "peach", "lavender", "mint", "rosemary", "chamomile", "ginger", "sea salt"),
            ("Hand Soap", "Bar Soap"),
            ("Cleans hands without drying the skin", "A soap that foams in hard water", "Cured for six weeks before it leaves the soap house"),
            ("100 g", "250 ml", "pack of 3"),
            5.5,
        ),
        "hand cream": Family(
            "care",
            "hand soap",
            ("maple", "vanilla", "lemon", "mango", "lavender", "chamomile", "rosemary", "mint", "cinnamon", "sea salt"),
            ("Hand Cream", "Skin Balm"),
            ("Sinks into dry skin within a minute", "A cream with shea butter for hard-working hands", "Protects the skin on cold days"),
            ("50 ml", "75 ml"),
            7.0,
        ),
    },
    places=("",),
)

FILM_NOTES = {
    "sweet": Note(
        ("funny", "prank", "goofy"),
        {
            "wedding": "a wedding where nothing goes to plan",
            "first love": "two shy people in love for the first time",
            "school play": "a school play and its clumsy cast",
            "family reunion": "a family that meets again after years",
        },
    ),
    "fresh": Note(
        ("adventurous", "intrepid", "swashbuckling"),
        {
            "road trip": "four friends on a road trip in an old van",
            "treasure hunt": "a map and the treasure hunt it starts",
            "sea voyage": "a crew on a voyage over unknown seas",
            "space flight": "the first flight beyond the planets",
        },
    ),
    "calm": Note(
        ("quiet", "meditative", "hushed"),
        {
            "village life": "one year of life in a remote village",
            "monastery": "the monks of a mountain monastery",
            "garden": "an old gardener and his last garden",
            "winter cabin": "a writer alone in a winter cabin",
        },
    ),
    "bold": Note(
        ("tense", "menacing", "breathless"),
        {
            "bank heist": "a bank heist planned to the second",
            "haunted house": "a haunted house and those who dare to sleep there",
            "revenge": "a long revenge and its price",
            "conspiracy": "a reporter who uncovers a conspiracy",
        },
    ),
}
FILM_THEMES = tuple(theme for note in FILM_NOTES.values() for theme in note.flavours)

FILMS = Language(
    title="{Flavour} in {place}",
    sentences=(
        (
            "A {mood} {family} about {scene}.",
            "{brand} presents a {mood} {family} about {scene}.",
            "In this {mood} {thing}, everything turns on {scene}.",
            "Set in {place}, this {mood} {family} follows {scene} to the end.",
            "The {mood} story of {scene}, told as a {family}.",
            "What begins with {scene} becomes a {mood} {thing}.",
        ),
        ("{detail}. It is {claim}.", "It is {claim}. {detail}.", "{claim}. {detail}.", "{detail}. Also: {claim}."),
        (
            "A {brand} production.",
            "Running time {size}.",
            "From the makers at {brand}.",
            "Shot on location.",
            "A favourite of the festival season.",
            "The score alone is worth the ticket.",
            "Restored by {brand} from the first print.",
        ),
    ),
    notes=FILM_NOTES,
    diets={
        "award winning": ("the winner of many awards", "a winner of three festival prizes"),
        "black and white": ("filmed in black and white", "shot without colour"),
        "family friendly": ("suitable for all ages", "made for the whole family"),
        "independent": ("made far from the big studios", "an independent film on a small budget"),
        "subtitled": ("subtitled from the original language", "in a foreign language with subtitles"),
    },
    families={
        name: Family(
            "films",
            complement,
            FILM_THEMES,
            things,
            details,
            ("88 minutes", "95 minutes", "104 minutes", "121 minutes"),
            9.0,
        )
        for name, complement, things, details in (
            ("comedy", "romance", ("comedy film", "farce"), ("One misunderstanding leads to ten more", "Jokes come twice a minute")),
            ("romance", "drama", ("love story", "romance film"), ("Two hearts take the long way round", "Letters are written and never sent")),
            ("drama", "comedy", ("drama film", "human drama"), ("Great actors carry small scenes", "Choices are made that can't be undone")),
            ("thriller", "mystery", ("thriller film", "suspense film"), ("The clock runs from the first scene", "No one tells the whole truth")),
            ("mystery", "thriller", ("detective film", "whodunit"), ("The inspector collects clues in silence", "Everyone had a motive")),
            ("ghost story", "comedy", ("horror film", "fright film"), ("Something moves behind the wall", "The lights go out at midnight")),
            ("documentary", "drama", ("documentary film", "factual film"), ("Real people speak for themselves", "Years of footage in one film")),
            ("animation", "musical", ("animated film", "cartoon"), ("Drawn by hand, frame after frame", "Talking animals lead the way")),
            ("musical", "animation", ("musical film", "song-and-dance film"), ("Songs carry the plot", "The whole town breaks into dance")),
            ("western", "documentary", ("western film", "frontier film"), ("Riders cross the dusty plains", "A stranger comes to town")),
            ("space opera", "western", ("sci-fi film", "film of the future"), ("Machines learn to dream", "The year is 2190")),
        )
    },
    places=tuple(
        f"{a} {b}"
        for b in ("Bay", "Valley", "Harbour", "Heights", "Springs", "Crossing", "Falls", "Point")
        for a in ("Silver", "Harrow", "Maple", "Stone", "Amber", "Willow", "Raven", "Clear")
    ),
)

LANGUAGES = {"groceries": GROCERIES, "films": FILMS}

MARKETS = {
    "grocery": Market(
        "groceries",
        (
            *("Alderbrook", "Bramblewick", "Corriedale", "Dunmere", "Elderfold", "Fennimoor", "Glenharrow", "Hollinside"),
            *("Ivorne", "Juniperay", "Kestrelby", "Larkmoss", "Merriden", "Nettlecombe", "Oakhusk", "Pellamy"),
        ),
    ),
    "pantry": Market(
        "groceries",
        (
            *("Quillado", "Rastavo", "Solbrina", "Tamurelle", "Umbrosia", "Vantiglio", "Wexaro", "Xandoria"),
            *("Yolanti", "Zafferine", "Belmarossa", "Casimona"),
        ),
    ),
    "films": Market(
        "films",
        (
            *("Northlight Pictures", "Blue Lantern", "Cinder & Pine", "Ninth Reel", "Paper Moth", "Tall Ship Films"),
            *("Velvet Curtain", "Wander House", "Copper Fox", "Harbourline"),
        ),
    ),
}
