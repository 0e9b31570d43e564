"""Vocabulary of the generated tasks.

Each list has common words, which every split uses, and rare ones, which only validation and test use: a tuned model
must generalise to words that it knows from pretraining alone.
"""

from __future__ import annotations

from random import Random


class Words:
    """A list of words in two parts.

    Args:
        common: The words of every split, separated by white space.
        rare: The words that only validation and test use.
    """

    def __init__(self, common: str, rare: str) -> None:
        self.common = tuple(common.split())
        self.rare = tuple(rare.split())

    def __contains__(self, word: str) -> bool:
        return word in self.common or word in self.rare

    def pick(self, rng: Random, rare: bool) -> str:
        """Draw a word, from the rare ones if `rare`."""
        return rng.choice(self.rare if rare else self.common)


ASPECTS = Words(
    """acting plot script soundtrack dialogue ending camera editing story cast director humor costume music
    dessert soup waiter menu kitchen service breakfast room lobby pool view location mattress shower
    battery screen keyboard speaker design manual packaging charger printer headset lens
    lecture chapter novel museum concert trip tour flight train driver garden course teacher guide""",
    """screenplay choreography finale narrator salad chef bartender balcony hallway elevator microphone laptop
    firmware zipper exhibit sermon ferry campsite podcast sequel""",
)

GOOD = Words(
    """good great excellent wonderful brilliant charming delightful superb lovely impressive pleasant perfect
    fantastic beautiful amazing elegant fresh funny clever exciting fascinating inspiring memorable reliable
    refreshing satisfying splendid stunning thoughtful touching warm witty generous graceful engaging
    comfortable outstanding terrific magnificent enjoyable""",
    """marvelous exquisite captivating hilarious flawless sublime heartwarming phenomenal dazzling enchanting
    masterful stellar gripping luxurious compelling""",
)

BAD = Words(
    """bad terrible awful boring dull horrible poor weak ugly clumsy disappointing annoying tedious bland stupid
    dreadful mediocre sloppy lousy ridiculous pathetic unpleasant shabby noisy confusing frustrating lazy
    pointless shallow stale tasteless unreliable useless wretched messy miserable gloomy painful ordinary crude""",
    """abysmal atrocious dismal insipid grating lifeless tacky appalling disgusting hideous incoherent horrid
    unbearable tiresome pretentious""",
)

PLEASES = {
    "delighted": "delight",
    "impressed": "impress",
    "pleased": "please",
    "charmed": "charm",
    "amused": "amuse",
    "inspired": "inspire",
    "thrilled": "thrill",
    "enchanted": "enchant",
    "satisfied": "satisfy",
    "fascinated": "fascinate",
}
"""Verbs of praise, past form to base form."""

UPSETS = {
    "bored": "bore",
    "annoyed": "annoy",
    "disappointed": "disappoint",
    "irritated": "irritate",
    "frustrated": "frustrate",
    "disgusted": "disgust",
    "offended": "offend",
    "confused": "confuse",
    "angered": "anger",
    "exhausted": "exhaust",
}
"""Verbs of blame, past form to base form."""

PEOPLE = Words(
    """doctor nurse teacher student farmer baker lawyer soldier sailor painter singer dancer actor writer editor
    banker barber butcher carpenter cashier clerk coach cook cousin designer detective driver engineer gardener
    guard guest hunter judge king lady manager mechanic minister musician neighbor officer pilot poet priest
    prince professor queen reporter scientist senator servant sister tailor tourist trader uncle waiter winner""",
    """surgeon plumber violinist astronaut bishop chemist diplomat florist goalkeeper historian janitor
    librarian magician novelist optician philosopher referee sculptor therapist wrestler""",
)

THINGS = Words(
    """key cabinet box table chair lamp picture window door letter book bottle basket bridge boat car wagon ship
    castle tower garden road river lake mountain tree flower candle coin crown drum guitar hammer helmet jacket
    blanket carpet curtain mirror painting pencil pillow plate pot ring rope saddle sign spoon statue ticket
    towel toy umbrella wheel barrel""",
    """lantern anchor cushion kettle ladder locket napkin parcel pendant ribbon scarf shovel teapot trumpet
    vase violin wallet anvil goblet chandelier""",
)

TRAITS = Words(
    """old new heavy dirty clean small large broken expensive cheap famous pretty dusty strange ancient modern
    bright dark wet dry hidden valuable dangerous useful special""",
    """fragile rusty wooden enormous ornate filthy spotless antique peculiar priceless""",
)

MOODS = Words(
    """tired happy angry hungry nervous calm sick proud rich lonely busy famous brave honest careful friendly
    worried jealous polite quiet lucky sad young clever rude""",
    """anxious cheerful furious exhausted humble stubborn wealthy curious grumpy restless""",
)

DEEDS = Words(
    """admired blamed called chased followed greeted helped hired hurt invited kicked liked mocked paid praised
    pushed rescued saved scolded thanked trusted visited warned watched""",
    """accused betrayed comforted congratulated envied insulted interviewed pardoned punished tackled""",
)
