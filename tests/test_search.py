"""Search: strategies against counts worked out by hand on scripted trees, and a whole run on a small model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch

from fkv import policies
from fkv.commands import main
from fkv.models import registry
from fkv.models.registry import ModelEntry
from fkv.report import frame_hash
from fkv.roles import save as save_roles
from fkv.sampler import CODE, BranchNoise
from fkv.search import rewards, strategies
from fkv.search.forbidden import detector
from fkv.search.futures import Cost, Futures, cost_of, look_of
from fkv.search.guard import Guard
from fkv.search.head import Foresight, Head, Samples, fit
from fkv.search.learning import facts_of
from fkv.search.moves import KINDS, Move, Moves, avoiding, wordings
from fkv.search.report import found, replay, rewarded, story_of
from fkv.search.search import OFF_PATH, Search
from fkv.search.strategies.ets import choose, clusters_of, prices_of
from fkv.search.strategies.rebase import ranks
from fkv.search.tree import Node, score_of
from fkv.storyboard import Cue, SetPolicy, SetPrompt, SetSteps, Storyboard
from fkv.stream import Stream
from fkv.studio.live.plan import Plan
from fkv.world import shots
from fkv.world.captions import TIMES, Thing
from fkv.world.captions import parse as scene_of
from fkv.world.panorama import draw, tell
from fkv.world.render import GENES, render
from fkv.world.story import STORY_GENES
from fkv.world.tensors import genes_of

PROMPT = "a red ball bouncing over the hills at sunset"


class Script:
    """A tree whose rewards are a function of the path; a chunk takes 5 passes."""

    def __init__(self, reward, newest=100):
        self.reward = reward
        self.newest = newest

    def root(self):
        return Node()

    def grow(self, parent, moves):
        children = []
        for move in moves:
            reward = self.reward((*parent.path, move.noise))
            children.append(Node(parent, move, reward, score_of(parent, reward, self.newest), passes=5))
        return children

    def keep(self, leaves):
        pass


def even(passes, chunks):
    return Cost((passes,) * chunks, (passes,) * chunks)


def leaves_with(*scores):
    root = Node()
    return [Node(root, reward=score, score=score) for score in scores]


def run_of(search):
    """Run a search. Returns its path, and the chunks of all nodes."""
    path, chunks = [], {}
    for event, node in search.events():
        if event == "made":
            chunks[node] = node.chunk
        else:
            path.append(node)
    return path, chunks


def children(text, scores, width):
    return strategies.parse(text).children(leaves_with(*scores), width)


def searched(strategy, reward, chunks, width, lookahead=None, passes=1000):
    newest = chunks if lookahead is None else lookahead + 1
    search = Search(
        strategies.parse(strategy), Moves(), Script(reward, newest), chunks, width, lookahead, passes, even(5, chunks)
    )
    return search, list(search.run())


def test_best_of_fans_out_from_one_leaf_and_then_goes_on_with_each():
    assert children("best-of", [0.5], 4) == [4]
    assert children("best-of", [0.5, 0.1, 0.9, 0.9], 4) == [1, 1, 1, 1]
    assert children("best-of", [0.5, 0.1, 0.9, 0.9], 2) == [0, 0, 1, 1]


def test_beam_gives_the_width_to_the_best():
    assert children("beam", [0.1, 0.9, 0.5, 0.7], 8) == [0, 3, 2, 3]
    assert children("beam:beams=2", [0.1, 0.9, 0.5, 0.7], 8) == [0, 4, 0, 4]
    assert children("beam:beams=1", [0.1, 0.9], 5) == [0, 5]
    assert children("beam", [0.5], 1) == [1]


def test_dvts_keeps_the_best_leaf_of_each_subtree():
    assert children("dvts", [0.5], 8) == [3]
    root = Node()
    first, second = Node(root), Node(root)
    leaves = [Node(first, score=0.2), Node(first, score=0.9), Node(second, score=0.4), Node(second, score=0.3)]
    assert strategies.parse("dvts").children(leaves, 5) == [0, 3, 2, 0]
    assert strategies.parse("dvts").children(leaves, 1) == [0, 1, 0, 0]
    assert strategies.parse("dvts").children(leaves[:2], 4) == [2, 2], "they part below the first chunk"


def test_rebase_shares_the_width_by_a_softmax():
    # weights 1, e^-1, e^-2: 8 of 1.503 -> 6 of 5.3; 2 of 0.503 -> 2 of 1.5; nothing is left
    assert children("rebase:scale=raw", [0.6, 1.0, 0.8], 8) == [0, 6, 2]
    # weights e^-0.1, e^-0.05, 1: nearly flat
    assert children("rebase:scale=raw", [0.50, 0.51, 0.52], 8) == [2, 3, 3]
    # ranks 0, 1/2, 1 and weights e^-5, e^-2.5, 1: all for the best
    assert children("rebase", [0.50, 0.51, 0.52], 8) == [0, 0, 8]
    # weights e^-1, e^-0.5, 1: 8 of 1.974 -> 5 of 4.1; 3 of 0.974 -> 2 of 1.9; 1
    assert children("rebase:temperature=1", [0.50, 0.51, 0.52], 8) == [1, 2, 5]
    assert children("rebase", [0.3, 0.3, 0.3, 0.3], 8) == [2, 2, 2, 2]
    assert list(ranks(np.array([0.1, 0.3, 0.3, 0.9]))) == [0, 0.5, 0.5, 1]


def looking(node, angle):
    node.look = np.array([np.cos(angle), np.sin(angle)])
    return node


def test_ets_keeps_what_looks_different_and_shares_a_parent():
    root = Node()
    cheap, dear = Node(root), Node(root)
    leaves = [
        looking(Node(cheap, score=1.0), 0.0),
        looking(Node(cheap, score=0.9), 0.01),
        looking(Node(cheap, score=0.8), 1.5),
        looking(Node(dear, score=0.7), 0.0),
    ]
    # By their scores they are worth 3, 2, 2 and 1 of 8. Without prices all stay.
    settings = "ets:scale=raw+temperature=1+cost=nodes+distance=0.05"
    assert strategies.parse(f"{settings}+node_price=0+look_bonus=0").children(leaves, 8) == [3, 2, 2, 1]
    # Each of 7 nodes costs 2/7 = 0.286. The first and third leaf, 5/8 - 4 * 2/7 + 1 = 0.48, are worth more than three
    # leaves, 0.45, or the first alone, 0.02; without the bonus the first alone, -0.48, more than both, -0.52.
    kept = strategies.parse(f"{settings}+node_price=2+look_bonus=1").children(leaves, 8)
    assert kept == [5, 0, 3, 0]
    assert strategies.parse(f"{settings}+node_price=2+look_bonus=0").children(leaves, 8) == [8, 0, 0, 0]
    assert not any(leaf.fate for leaf in leaves), "the program left out those without children"
    assert strategies.parse(f"{settings}+node_price=0+look_bonus=0").children(leaves, 1) == [1, 0, 0, 0]
    kept = {leaf.fate for leaf in leaves}
    assert kept == {"", "better leaves have used up the width"}, "it has kept more than the width pays for"


def test_ets_prices_nodes_by_the_bytes_that_leaves_hold_of_them():
    root = Node()
    parent = Node(root)
    leaves = [Node(parent, held={0: 100, 1: 200}), Node(parent, held={0: 300, 1: 400})]
    together, *alone = (frozenset(numbers) for numbers in ([0, 1], [0], [1]))
    assert prices_of(leaves, "bytes") == {together: 3 / 9, alone[0]: 2 / 9, alone[1]: 4 / 9}
    assert prices_of(leaves, "nodes") == {together: 2 / 4, alone[0]: 1 / 4, alone[1]: 1 / 4}
    for leaf in leaves:
        leaf.held = {}
    assert prices_of(leaves, "bytes") == prices_of(leaves, "nodes")


@pytest.mark.parametrize("number", range(20))
def test_the_program_of_ets_finds_what_trying_all_subsets_finds(number):
    rng = np.random.default_rng(number)
    level = [Node()]
    for count in (2, 4, 8):
        level = [Node(level[rng.integers(len(level))]) for _ in range(count)]
    worth, kinds, bonus = rng.dirichlet(np.ones(8)), rng.integers(0, 3, 8), rng.uniform(0, 2)
    kinds = np.unique(kinds, return_inverse=True)[1]
    price = {node: rng.uniform(0, 0.2) for node in level[0].ancestry[0]}

    def value(kept):
        needed = {node for i in kept for node in level[i].ancestry}
        covered = len({kinds[i] for i in kept}) / (kinds.max() + 1)
        return sum(worth[list(kept)]) - sum(price[node] for node in needed) + bonus * covered

    needs = {}
    for node in price:
        if below := frozenset(i for i in range(8) if node in level[i].ancestry):
            needs[below] = needs.get(below, 0.0) + price[node]
    best = max(value(kept) for size in range(1, 9) for kept in combinations(range(8), size))
    assert value(choose(worth, needs, kinds, bonus)) == pytest.approx(best)


@pytest.mark.parametrize("text", strategies.STRATEGIES)
@pytest.mark.parametrize("width", [1, 2, 7, 16])
@pytest.mark.parametrize("scores", [[0.5], [0.2, 0.2], [0.9, 0.0, 0.3, 0.3, 1.0], [0.0, 0.0, 0.0]])
def test_a_strategy_spends_the_width_and_no_more(text, scores, width):
    chosen = strategies.parse(text).expand(leaves_with(*scores), width, Moves())
    assert len(chosen) == len(scores)
    assert 1 <= sum(map(len, chosen)) <= width


def trap(path):
    """Branch 1 begins well and ends badly; branch 2 begins badly and is the best of all in the end."""
    first = {0: 0.5, 1: 0.9, 2: 0.3}.get(path[0], 0.0)
    return first if len(path) == 1 else {0: 0.5, 1: 0.1, 2: 1.0}.get(path[0], 0.0)


def test_without_lookahead_the_first_chunk_decides_and_with_it_what_follows():
    _, greedy = searched("best-of", trap, 3, 3, lookahead=0)
    assert greedy[-1].path[0] == 1
    _, ahead = searched("best-of", trap, 3, 3, lookahead=1)
    assert ahead[-1].path[0] == 2, "0.3 + 1.0 is more than 0.9 + 0.1 and 0.5 + 0.5"
    _, offline = searched("best-of", trap, 3, 3)
    assert offline[-1].path == (2, 2, 2)


def test_each_future_of_best_of_has_noise_and_moves_of_its_own_at_every_chunk():
    story = Storyboard((Cue(2, TO_NIGHT),))
    moves = Moves(story, ("noise", "recache"), PROMPT, chunks=4)
    search = Search(strategies.parse("best-of"), moves, Script(lambda path: 0.5), 4, 4, None, 1000, even(5, 4))
    list(search.run())
    leaves = [node for node in search.root if node.depth == 4]
    assert [leaf.path for leaf in leaves] == [(number,) * 4 for number in range(4)]
    assert [leaf.moves[2].changes[0].recache for leaf in leaves] == [False, True, False, True]


def test_beam_of_one_falls_into_the_trap_that_best_of_avoids():
    search, path = searched("beam:beams=1", trap, 3, 3)
    assert path[-1].path[0] == 1
    assert [level.leaves for level in search.levels] == [3, 3, 3]
    assert {node.fate for node in search.root if node.depth == 1} == {"", "not among the best of its depth"}


def test_a_chunk_is_decided_once_the_tree_is_as_far_ahead_as_asked():
    search = Search(strategies.parse("beam"), Moves(), Script(lambda path: 0.5), 5, 4, 2, 1000, even(5, 5))
    depths = [(node.depth, len(search.levels)) for node in search.run()]
    assert depths == [(1, 3), (2, 4), (3, 5), (4, 5), (5, 5)]
    dropped = [node for node in search.root if node.fate == OFF_PATH]
    assert dropped and not any(node.stream for node in dropped)


def test_saffron_with_a_head_stays_within_its_passes():
    class Foreseen(Script):
        """A tree with a head that predicts more of moves of higher codes."""

        def root(self):
            return self.known(Node())

        def grow(self, parent, moves):
            return [self.known(child) for child in super().grow(parent, moves)]

        def known(self, node):
            node.predicted = {f"code {number}": number / 10 for number in range(1, 8)}
            return node

    moves, script = Moves(kinds=("code",)), Foreseen(lambda path: 0.5)
    search = Search(strategies.parse("saffron"), moves, script, 5, 8, 1, 60, even(5, 5))
    path = list(search.run())
    assert [node.move.key for node in path] == ["code 7"] * 5
    assert [level.leaves for level in search.levels] == [2, 2, 2, 3, 3]
    assert sum(level.passes for level in search.levels) == 60


@pytest.mark.parametrize("strategy", strategies.STRATEGIES)
@pytest.mark.parametrize("passes", [25, 60, 99, 1000])
@pytest.mark.parametrize("lookahead", [None, 0, 1, 9])
def test_passes_are_bounded_and_always_enough_for_the_whole_video(strategy, passes, lookahead):
    search, path = searched(strategy, lambda path: 1 / (1 + sum(path)), 5, 8, lookahead, passes)
    assert [node.depth for node in path] == [1, 2, 3, 4, 5]
    assert all(later.parent is earlier for earlier, later in zip(path, path[1:], strict=False))
    assert sum(level.passes for level in search.levels) <= passes


def test_the_share_of_a_decision_is_the_median_and_not_that_of_one_that_imports_a_solver():
    search = Search(strategies.parse("beam"), Moves(), Script(lambda path: 0.5), 3, 2, None, 100, even(5, 3))
    path = list(search.run())
    search.levels = [replace(level, strategy_s=s) for level, s in zip(search.levels, (9.0, 0.01, 0.03), strict=True)]
    chunk = SimpleNamespace(timings=SimpleNamespace(total=2.0))
    assert found(search, path, [chunk] * 3)["strategy_share"] == pytest.approx(0.015)


def test_too_few_passes_and_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="allow at least 25"):
        searched("beam", trap, 5, 8, passes=24)
    with pytest.raises(ValueError, match="width must be at least 1"):
        searched("beam", trap, 5, 0)
    with pytest.raises(ValueError, match="lookahead must be at least 0"):
        searched("beam", trap, 5, 2, lookahead=-1)
    with pytest.raises(ValueError, match="no strategy 'bem'; there are best-of, beam, dvts, rebase, ets, saffron"):
        strategies.parse("bem")
    with pytest.raises(ValueError, match="has no parameter 'beam'; it has beams"):
        strategies.parse("beam:beam=2")
    with pytest.raises(ValueError, match="beams must be a whole number of at least 0"):
        strategies.parse("beam:beams=x")


NIGHT = "a red ball bouncing over the hills at night"
TO_NIGHT = SetPrompt(NIGHT)


def moved(kinds, *path, count=9, chunks=9):
    moves = Moves(Storyboard((Cue(1, TO_NIGHT),)), kinds, PROMPT, "full", ("forcing-kv", "full"), 4, chunks)
    return moves.of(path, count)


def test_noise_is_the_branch_of_each_child_and_changes_take_turns():
    assert moved(("noise",), count=3) == [Move(0), Move(1), Move(2)]
    assert moved(("noise",), Move(), count=2) == [Move(0, (TO_NIGHT,)), Move(1, (TO_NIGHT,))]
    both = moved(("noise", "recache"), Move(), count=4)
    assert [(move.noise, move.changes[0].recache) for move in both] == [(0, False), (1, True), (2, False), (3, True)]


def test_moves_without_noise_are_as_many_as_there_are():
    assert moved(("recache",)) == [Move()]
    assert moved(("recache",), Move()) == [Move(0, (TO_NIGHT,)), Move(0, (SetPrompt(NIGHT, recache=True),))]
    cut = replace(TO_NIGHT, cut=True)
    others = Moves(Storyboard((Cue(1, cut),)), ("recache", "avoid"), PROMPT, forbidden=("night",)).of([Move()], 9)
    assert [move.name for move in others] == ["", "avoid 1", "avoid 2"], "a cut has no line with re-cache"
    assert moved(("steps",), Move(), Move()) == [Move(), Move(0, (SetSteps(2),))]
    assert moved(("steps",), Move(0, (SetSteps(2),)), Move()) == [Move(), Move(0, (SetSteps(4),))]
    assert moved(("policy",), Move(), Move()) == [Move(), Move(0, (SetPolicy("A", "forcing-kv"),))]
    lean = Move(0, (SetPolicy("A", "forcing-kv"),))
    assert moved(("policy",), lean, Move()) == [Move(), Move(0, (SetPolicy("A", "full"),))]


def test_moves_of_policy_have_the_name_of_the_policy_whether_it_stays_or_comes():
    moves = Moves(kinds=("policy",), policy="full", policies=("forcing-kv", "full"))
    (stays, comes) = moves.of([Move()], 9)
    assert (stays.key, comes.key) == ("noise 0, full", "noise 0, forcing-kv")
    assert moves.plain([comes]).key == comes.key and not moves.plain([comes]).changes


def test_other_wordings_say_the_same_scene():
    for opening in (True, False):
        plain, *others = moved(("wording",), *([] if opening else [Move()]))
        prompts = [change.prompt for move in others for change in move.changes]
        assert len(set(prompts)) == 3 and not {PROMPT, NIGHT} & set(prompts)
        assert {scene_of(prompt) for prompt in prompts} == {scene_of(PROMPT if opening else NIGHT)}
    assert wordings("a lighthouse") == []


def test_other_prompts_of_the_memory_world_keep_the_camera():
    shot = "a red ball roaming over the hills at night, camera left"
    assert {shots.parse(text) for text in wordings(shot)} == {shots.parse(shot)}
    first, second = map(shots.parse, avoiding(shot, ("red", "night")))
    assert first == replace(shots.parse(shot), time="day", subject=replace(first.subject, colour="orange"))
    assert second.camera == "left" and second.subject.colour == "yellow"
    assert avoiding("something roaming over the sea by day, camera left", ("red",)) == [
        "something roaming over the sea by day, camera left"
    ]
    assert avoiding(shot, TIMES) == []
    assert avoiding("a dog to the left of the sea at night", ("night",)) == ["a dog to the left of the sea at"]


def test_prompts_without_forbidden_words_say_the_rest_of_the_scene():
    forbidden = ("red", "night")
    assert [scene_of(text) for text in avoiding(NIGHT, forbidden)] == [
        replace(scene_of(NIGHT), things=(Thing("orange", "ball", "bouncing"),), time="day"),
        replace(scene_of(NIGHT), things=(Thing("yellow", "ball", "bouncing"),), time="sunset"),
    ]
    assert avoiding("A red fox at night, redder than red", forbidden) == ["A fox at , redder than"]
    assert avoiding("A fox at Midnight", forbidden) == ["A fox at"], "the oracle reads it as night"
    assert avoiding("red", forbidden) == [] == avoiding(NIGHT, TIMES)
    moves = Moves(kinds=("avoid",), prompt=PROMPT, forbidden=("sunset",))
    plain, *others = moves.of((Move(),), 99)
    names = ["avoid 1", "avoid 1 with re-cache", "avoid 2", "avoid 2 with re-cache", "flush"]
    assert [move.name for move in others] == names
    assert "at night" in others[0].changes[0].prompt and plain == Move()
    reworded = moves.of((Move(), others[0]), 99)
    assert reworded[1].changes == others[0].changes, "the prompt in force is the one without the word"


def test_a_change_may_come_later_but_neither_for_ever_nor_after_the_end():
    held = Move(0, (), (TO_NIGHT,))
    assert moved(("when",), Move()) == [Move(0, (TO_NIGHT,)), held]
    assert moved(("when",), Move(), held) == [Move(0, (TO_NIGHT,)), held]
    assert moved(("when",), Move(), held, held) == [Move(0, (TO_NIGHT,))]
    assert moved(("when",), Move(), chunks=2) == [Move(0, (TO_NIGHT,))]
    assert moved(("when",), Move(), held, Move(0, (TO_NIGHT,))) == [Move()]


def test_moves_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no kind of move 'colour'; there are noise, code"):
        Moves(kinds=("noise", "colour"))
    with pytest.raises(ValueError, match="name one of them"):
        Moves(kinds=("noise", "code"))
    with pytest.raises(ValueError, match="need forbidden ones"):
        Moves(kinds=("avoid",))
    with pytest.raises(ValueError, match="need a shared cache"):
        Moves(kinds=("steps",), policy="per-step")


@pytest.fixture(scope="module")
def chunk(small):
    return Stream(small, policies.parse("full"), PROMPT).step()


def shown(chunk, prompt, of=None):
    """A chunk that shows the toy world's picture of a prompt, under another prompt if one is given."""
    video = render(scene_of(of or prompt), range(12), [0.3] * GENES)
    return replace(chunk, video=video, prompt=prompt)


def test_continuity_compares_the_border_with_what_is_between_frames(chunk):
    ramp = np.zeros((4, 2, 2, 3), np.uint8) + np.arange(0, 40, 10, dtype=np.uint8)[:, None, None, None]
    even = [replace(chunk, video=ramp), replace(chunk, video=ramp + 40)]
    assert rewards.continuity(even) == pytest.approx(1 / 2)
    jump = [replace(chunk, video=ramp), replace(chunk, video=ramp + 60)]
    assert rewards.continuity(jump) == pytest.approx(10 / (10 + 30))
    assert rewards.continuity(even[:1]) == 1.0


def test_change_counts_the_new_words_that_are_seen(chunk):
    night = "a red ball bouncing over the sea at night"
    before = shown(chunk, PROMPT)
    assert rewards.change([before, shown(chunk, night)]) == 1.0
    assert rewards.change([before, shown(chunk, night, of=PROMPT)]) == 0.0
    half = shown(chunk, night, of="a red ball bouncing over the sea at sunset")
    assert rewards.change([before, half]) == 0.5
    assert rewards.change([before, shown(chunk, PROMPT)]) == 1.0


def test_rules_forbid_what_the_oracle_sees(chunk):
    assert rewards.parse("rules:red,night")([shown(chunk, PROMPT)])[0] == 0.0
    assert rewards.parse("rules:blue,night")([shown(chunk, PROMPT)])[0] == 1.0
    with pytest.raises(ValueError, match="does not read 'swan'"):
        rewards.parse("rules:swan")
    assert [*rewards.parse("rules:violet,dusk").parts] == [*detector("violet, dusk").parts] == ["rules:purple,sunset"]


def test_wishes_say_where_things_are(chunk):
    seen = shown(chunk, PROMPT)
    left, right = (rewards.parse(f"wish:{side}")([seen])[0] for side in ("left", "right"))
    assert left + right == pytest.approx(1) and left != right
    assert rewards.parse("wish:apart")([seen])[0] == rewards.parse("wish:close")([seen])[0] == 0, "there is one thing"
    assert rewards.parse("wish:right@0.5")([seen])[0] == right
    assert rewards.parse("wish:right@0.8")([seen])[0] == 1, "the chunk is over after 0.75 s"
    assert rewards.LAYOUTS["middle"]([0.5]) == 1 and rewards.LAYOUTS["middle"]([0.25]) == 0.5
    assert rewards.LAYOUTS["apart"]([0.2, 0.9]) == pytest.approx(0.7)
    assert rewards.LAYOUTS["close"]([0.2, 0.9]) == pytest.approx(0.3)
    for text in ("wish:up", "wish:left@noon", "wish:left@nan", "wish:left@-1", "wish:left@inf"):
        with pytest.raises(ValueError, match="wish for left, middle|no second"):
            rewards.parse(text)


def test_a_jury_says_how_much_of_the_prompt_it_sees(chunk):
    video = render(scene_of(PROMPT), range(36), [0.3] * GENES)
    chunks = [replace(chunk, video=part, prompt=PROMPT) for part in np.split(video, 3)]
    assert rewards.jury(chunks[:1]) == 1, "too few frames to tell"
    assert rewards.jury(chunks) == 1
    other = [replace(chunk, prompt="a red star drifting over the hills at sunset") for chunk in chunks]
    assert rewards.jury(other) == pytest.approx(3 / 5)


def test_a_module_of_ones_own_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "reward_of_mine.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="cannot load the reward 'reward_of_mine:f': division by zero"):
        rewards.parse("reward_of_mine:f")


def test_chunks_of_a_picture_that_stands_still_look_alike(chunk):
    still = replace(chunk, video=np.full_like(chunk.video, 90))
    looks = [look_of(still, still), look_of(still, None), look_of(chunk, None)]
    assert [np.linalg.norm(look) for look in looks] == pytest.approx([1] * 3)
    one, two, other = clusters_of([Node(look=look) for look in looks], 0.5)
    assert one == two != other


def test_truth_is_the_picture_that_prompts_and_noise_decide(chunk):
    noise = BranchNoise(4, (0, 3))
    latents = torch.zeros(1, 3, 16, 12, 20)
    genes = genes_of(noise.initial(0, latents.shape)[0, 0, :, 0, 0])
    drawn = render(scene_of(PROMPT), range(12, 24), genes)
    later = replace(chunk, index=1, prompt=PROMPT, video=drawn, latents=latents)
    toy = rewards.Past(noise, (PROMPT, PROMPT), events=False)
    assert rewards.parse("truth")([later], toy)[0] == 1
    grey = replace(later, video=np.clip(drawn.astype(int) + 10, 0, 255).astype(np.uint8))
    assert rewards.parse("truth")([grey], toy)[0] == pytest.approx(20 * np.log10(25.5) / 40, abs=0.02)
    scene = scene_of(PROMPT)
    told = tell([scene, scene], [[0.3] * STORY_GENES] * 2).chunks[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "genes_of", lambda corner, count: [0.3] * count)
        memory = replace(later, video=draw(told.moments))
        assert rewards.parse("truth")([memory], rewards.Past(noise, (PROMPT, PROMPT), events=True))[0] == 1
    with pytest.raises(ValueError, match="names no"):
        rewards.check_prompts(rewards.parse("truth"), ["a fox"])


def test_rewards_are_means_with_parts_and_functions_from_outside(chunk, monkeypatch):
    monkeypatch.setattr("tests.test_search.brightness", lambda video, prompt: 0.25)
    reward, parts = rewards.parse("rules:red + tests.test_search:brightness")([shown(chunk, PROMPT)])
    assert parts == {"rules:red": 0.0, "tests.test_search:brightness": 0.25} and reward == 0.125
    monkeypatch.setattr("tests.test_search.brightness", lambda video, prompt: video.no_such_thing)
    with pytest.raises(ValueError, match="test_search:brightness failed"):
        rewards.parse("tests.test_search:brightness")([shown(chunk, PROMPT)])
    for name in ("sharpness", "no_such_module:f", "math:nothing"):
        with pytest.raises(ValueError, match="reward"):
            rewards.parse(name)


def test_futures_of_a_real_stream_count_their_passes_and_are_the_streams_that_replay_makes(small):
    story = Storyboard((Cue(1, SetPrompt("a blue star over the sea at night", recache=True)),))

    def begin(noise):
        return Stream(small, policies.parse("full"), PROMPT, noise=noise)

    continuity = rewards.parse("continuity")
    futures = Futures(begin, 7, continuity, 3)
    moves = Moves(story, chunks=3)
    assert cost_of(small, moves, continuity) == Cost((3, 3, 3), (3, 4, 3))
    search = Search(strategies.parse("beam"), moves, futures, 3, 4, None, 1000, cost_of(small, moves, continuity))
    path, chunks = run_of(search)
    assert [level.passes for level in search.levels] == [4 * 3, 4 * (3 + 1), 4 * 3], "two steps, context, re-cache"
    assert search.levels[1].kv_bytes == search.levels[1].kv_bytes_copied, "each has recomputed its cache"
    assert search.levels[2].kv_bytes < search.levels[2].kv_bytes_copied
    again = replay(begin, 7, path[-1].path, story, 3)
    assert [chunk.passes for chunk in again] == [3, 4, 3]
    for node, chunk in zip(path, again, strict=True):
        assert np.abs(chunks[node].latents - chunk.latents).max() < 1e-4
        assert node.prompt == chunk.prompt
    leaf = search.root.children[-1]
    assert leaf.held == {0: chunks[leaf].kv_bytes}
    assert {node.depth for node in search.root if node.chunk} == {2, 3}, "no later chunk is rewarded with the first"
    plain = Stream(small, policies.parse("full"), PROMPT, noise=BranchNoise(7))
    assert frame_hash(replay(begin, 7, (), Storyboard(), 1)) == frame_hash([plain.step()])


def test_a_search_pays_for_a_recache_where_one_can_be(small):
    continuity, faithful = rewards.parse("continuity"), rewards.parse("faithful")
    change = Storyboard((Cue(2, TO_NIGHT),))

    def most(story, *kinds, policy="full", reward=continuity):
        moves = Moves(story, kinds, PROMPT, policy, chunks=5, forbidden=("red",))
        return cost_of(small, moves, reward).most

    assert most(Storyboard(), "noise", "recache") == (3, 3, 3, 3, 3)
    assert most(change, "noise", "recache") == (3, 3, 5, 3, 3)
    assert most(change, "recache", "when") == (3, 3, 5, 6, 7)
    assert most(change.with_recache(), "noise") == (3, 3, 5, 3, 3)
    assert most(Storyboard((Cue(2, replace(TO_NIGHT, cut=True)),)), "recache") == (3, 3, 3, 3, 3)
    assert most(Storyboard(), "avoid") == (3, 4, 5, 6, 7)
    assert most(change, "recache", reward=faithful) == (6, 6, 10, 6, 6)


def test_a_search_of_prompts_without_forbidden_words_stays_within_its_passes(small):
    moves = Moves(Storyboard(), ("avoid",), PROMPT, "full", chunks=3, forbidden=("sunset",))

    def begin(noise):
        return Stream(small, policies.parse("full"), PROMPT, noise=noise)

    continuity = rewards.parse("continuity")
    cost = cost_of(small, moves, continuity)
    search = Search(strategies.parse("beam"), moves, Futures(begin, 0, continuity, 3), 3, 6, None, 24, cost)
    assert len(list(search.run())) == 3
    assert sum(level.passes for level in search.levels) <= 24


def test_chunks_that_take_more_than_expected_end_a_search_with_a_sentence():
    search = Search(strategies.parse("beam"), Moves(), Script(lambda path: 0.5), 3, 2, None, 9, even(3, 3))
    with pytest.raises(ValueError, match="the 9 passes are used up before chunk 2; allow more"):
        list(search.run())


def test_passes_of_the_full_cache_count_also_where_a_head_predicted_earlier_rewards(small):
    def begin(noise):
        return Stream(small, policies.parse("sliding-window:window_frames=4"), PROMPT, noise=noise)

    futures = Futures(begin, 7, rewards.parse("faithful"), 3)
    root = futures.root()
    root.predicted = {"noise 0": 0.5}
    (first,) = futures.grow(root, [Move()])
    futures.keep([first])
    (second,) = futures.grow(first, [Move()])
    assert (first.passes, second.passes) == (3, 3 + 2 * 3), "the full cache's first chunk was made with the second"


def test_faithful_compares_each_future_with_the_full_cache_once(small, monkeypatch):
    def begin(noise):
        return Stream(small, policies.parse("sliding-window:window_frames=4"), PROMPT, noise=noise)

    faithful = rewards.parse("faithful")
    moves = Moves(Storyboard(), ("policy",), PROMPT, "sliding-window:window_frames=4", ("full",), chunks=3)
    futures = Futures(begin, 7, faithful, 3)
    search = Search(strategies.parse("beam"), moves, futures, 3, 2, None, 1000, cost_of(small, moves, faithful))
    path, chunks = run_of(search)
    assert len(futures.full._made) == 1, "only the newest chunk of the one path under the full cache is kept"
    first, second = search.root.children
    assert first.reward == second.reward == 1, "there is no past yet"
    assert (first.passes, second.passes) == (6, 3), "the full cache's chunk is made once for both"
    assert {chunk.policy for node, chunk in chunks.items() if node.move.name == "full"} == {"full"}
    found = rewarded(faithful, begin, 7, path[-1].path, story_of(path), replay(begin, 7, (), story_of(path), 3))
    assert found["reward"] == pytest.approx(np.mean([node.reward for node in path]), abs=1e-3)
    lean = replay(begin, 7, (), Storyboard(), 3)
    monkeypatch.setattr(rewards, "CLEAN_DB", 1000.0)
    assert rewarded(faithful, begin, 7, (), Storyboard(), lean)["reward"] < 1


def test_the_command_writes_videos_trees_and_the_same_report_twice(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    names = [name for name, strategy in strategies.STRATEGIES.items() if not strategy.needs_head]
    options = ["--strategy", ",".join(names), "--width", "4", "--lookahead", "1", "--chunks", "3"]
    looks = str(tmp_path / "looks.json")
    common = ["--passes", "60", "--seed", "3", "--out", str(tmp_path / "found")]
    measuring = ["search", "--width", "3", "--chunks", "1", "--calibrate", looks, *common]
    assert main.main(measuring) == 0 and json.loads(Path(looks).read_text())["pairs"] == 3
    capsys.readouterr()
    command = ["search", *options, "--looks", looks, *common]
    reports = []
    for _ in range(2):
        assert main.main(command) == 0
        reports.append(json.loads(capsys.readouterr().out))
    for name in names:
        row = reports[0]["strategies"][name]
        assert row["passes"] <= 60 and row["reward_calls"] * 3 == row["passes"]
        assert (row["path"], row["frames_sha256"]) == tuple(
            reports[1]["strategies"][name][key] for key in ("path", "frames_sha256")
        )
        tree = json.loads((tmp_path / "found" / f"{name}.json").read_text())
        assert len(tree["nodes"]) == row["reward_calls"] and sum(node["on_path"] for node in tree["nodes"]) == 3
        assert (tmp_path / "found" / f"{name}.mp4").exists()
    assert reports[0]["plain"]["passes"] == 9
    row = reports[0]["strategies"]["beam"]
    path = ",".join(map(str, row["path"]))
    assert main.main(["stream", "--chunks", "3", "--seed", "3", "--path", path]) == 0
    assert json.loads(capsys.readouterr().out)["frames_sha256"] == row["frames_sha256"]
    model, *linked = parse_qsl(row["link"].removeprefix("?"))
    plan = Plan.from_form(**{"b": "", **dict(linked), "seed": 3, "length": 3})
    assert (model, plan.path, plan.texts) == (("model", "small"), tuple(row["path"]), {"A": "forcing-kv"})
    assert main.main(["stream", "--path", "0,one"]) == 2
    assert "as in 0,3,1" in capsys.readouterr().err
    assert main.main(["stream", "--chunks", "2", "--path", "0,1,1"]) == 2
    assert "--path names 3 chunks, and the stream has 2" in capsys.readouterr().err


def test_the_story_and_the_link_of_a_report_repeat_its_frames(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    told = tmp_path / "told.txt"
    told.write_text(f"2: cut = {NIGHT}\n3: {PROMPT}")
    common = ["--chunks", "3", "--seed", "3", "--steps", "1"]
    found = ["--strategy", "best-of", "--moves", "recache,when", "--width", "2", "--story", str(told)]
    assert main.main(["search", *common, *found, "--recache", "--out", str(tmp_path / "found")]) == 0
    row = json.loads(capsys.readouterr().out)["strategies"]["best-of"]
    assert "cut = " in row["story"]
    told.write_text(row["story"])
    path = ",".join(map(str, row["path"]))
    assert main.main(["stream", *common, "--path", path, "--story", str(told)]) == 0
    assert json.loads(capsys.readouterr().out)["frames_sha256"] == row["frames_sha256"]
    link = dict(parse_qsl(row["link"].removeprefix("?")))
    assert link.pop("model") == "small"
    plan = Plan.from_form(**{"b": "", **link, "seed": 3, "length": 3})

    def begin(noise):
        return Stream(small, plan.policies["A"], plan.prompt, roles=small.roles, noise=noise)

    assert frame_hash(replay(begin, 3, plan.path, plan.story, 3)) == row["frames_sha256"]
    roles = tmp_path / "roles.json"
    save_roles(small.roles, roles)
    short = ["search", "--chunks", "1", "--width", "1", "--out", str(tmp_path / "found")]
    assert main.main([*short, "--roles", str(roles)]) == 0
    assert "link" not in json.loads(capsys.readouterr().out)["strategies"]["beam"], "no link brings roles back"


def test_saffron_makes_the_moves_of_which_most_is_predicted():
    first, second = leaves = leaves_with(0.5, 0.5)
    first.predicted = {"noise 0": 0.2, "code 1": 0.9}
    second.predicted = {"code 1": 0.3, "code 2": 0.8, "code 99": 1.0}
    moves = Moves(kinds=("code",), chunks=3)
    saffron = strategies.parse("saffron")
    chosen = [[move.key for move in each] for each in saffron.expand(leaves, 3, moves)]
    assert chosen == [["code 1"], ["code 2", "code 1"]], "there is no move code 99"
    assert saffron.expand(leaves, 1, moves) == [[Move(CODE + 1)], []]
    second.predicted = first.predicted = {}
    assert saffron.expand(leaves, 1, moves) == [[Move()], []], "it knows no move"


def test_codes_are_the_same_noise_at_every_chunk_and_for_every_seed():
    shape = (1, 3, 4, 4, 12)
    one, other = BranchNoise(3, (CODE + 1, CODE + 1)), BranchNoise(8, (0, CODE + 1, CODE + 2))
    assert torch.equal(one.initial(0, shape), one.initial(1, shape))
    assert torch.equal(one.initial(1, shape), other.initial(1, shape))
    assert not torch.equal(one.initial(0, shape), other.initial(2, shape))
    assert not torch.equal(one.between(0, 0, shape), one.between(0, 1, shape))


def test_codes_go_with_every_variant_once():
    assert [move.key for move in Moves(kinds=("code",)).of((), 99)] == ["noise 0", *(f"code {i}" for i in range(1, 8))]
    all_moves = moved(("code", "recache"), Move(), count=99)
    assert len(set(all_moves)) == len(all_moves) == 16
    keys = [move.key for move in all_moves]
    assert (
        keys[0] == "noise 0" and len(set(keys)) == 16 and {"noise 0, re-cache", "code 7", "code 7, re-cache"} <= {*keys}
    )


def test_a_head_learns_moves_by_state_and_knows_only_those_that_were_taken():
    states = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    keys = tuple("ab"[i % 2] for i in range(400))
    truth = torch.where(states[:, 0] > 0, 0.9, 0.1)
    given = torch.where(torch.tensor([key == "a" for key in keys]), truth, 1 - truth)
    head = fit(Samples(states, keys, given, tuple(i // 10 for i in range(400))), {"model": "none"})
    assert head.moves == ("a", "b") and head.facts["samples"] == 400
    assert head.facts["error"] < head.facts["error_of_means"] / 2
    sunny, dull = (head.predict(torch.tensor([sign, 0, 0, 0, 0, 0.0])) for sign in (2.0, -2.0))
    assert sunny["a"] > 0.7 > 0.3 > sunny["b"] and dull["a"] < 0.3 < 0.7 < dull["b"]


def test_saffron_from_the_command_line_learns_resumes_and_calls_no_rewards(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    out = tmp_path / "found"
    command = ["search", "--strategy", "saffron,beam", "--width", "4", "--lookahead", "1", "--chunks", "3"]
    command += ["--moves", " code", "--passes", "60", "--out", str(out)]
    assert main.main([*command]) == 2 and "train one with --learn 40" in capsys.readouterr().err
    reports, written = [], []
    for runs in ("5", "6"):
        assert main.main([*command, "--learn", runs]) == 0
        reports.append(json.loads(capsys.readouterr().out)["strategies"])
        written.append({file.name: file.stat().st_mtime_ns for file in (out / "saffron").glob("run-*")})
    assert len(written[1]) == 6 and written[0].items() <= written[1].items(), "five of six runs are not repeated"
    row = reports[1]["saffron"]
    assert row["head"]["runs"] == 6 and row["head"]["samples"] == 18 and row["head"]["prompts"]
    assert row["reward_calls"] == 0 and reports[1]["beam"]["reward_calls"] * 3 == reports[1]["beam"]["passes"]
    tree = json.loads((out / "saffron.json").read_text())
    assert not any(node["is_judged"] for node in tree["nodes"])
    assert main.main(command) == 0
    assert json.loads(capsys.readouterr().out)["strategies"]["saffron"]["path"] == row["path"]
    for options, sentence in [
        (["--moves", "noise"], "each noise is new; use code"),
        (["--learn", "1", "--chunks", "2"], "has runs with chunks 3, not 2"),
        (["--learn", "1", "--steps", "1"], "has runs with timesteps [1000"),
        (["--reward", "tests.test_search:brightness"], "the head was trained for rewards 'continuity', not 'tests"),
        (["--head", str(out / "beam.json")], "beam.json is not a head"),
        (["--moves", "steps"], "the head knows none of the moves steps; it was trained with code"),
        (["--head", "x", "--learn", "1"], "leave one of them out"),
    ]:
        assert main.main([*command, *options]) == 2
        assert sentence in capsys.readouterr().err


class Red:
    """A detector that lets a chunk pass with the listed noises, or where its prompt has no red in it."""

    parts = {"red": None}
    need_full = False

    def __init__(self, *allowed):
        self.allowed = allowed
        self.calls = 0

    def __call__(self, chunks, past=None):
        self.calls += 1
        is_fine = "red" not in chunks[-1].prompt or self.calls in self.allowed
        return float(is_fine), {}


def guarded(small, detector, head=None, chunks=3, tries=4, kinds=("code", "avoid")):
    moves = Moves(Storyboard(), kinds, PROMPT, "full", chunks=chunks, forbidden=("red",))

    def begin(noise):
        return Stream(small, policies.parse("full"), PROMPT, noise=noise)

    return Guard(begin, small, 5, moves, detector, head, tries)


def test_a_guard_that_finds_nothing_emits_the_plain_stream(small):
    guard = guarded(small, Red(1, 2, 3))
    plain = Stream(small, policies.parse("full"), PROMPT, 5)
    assert frame_hash(list(guard.run())) == frame_hash([plain.step() for _ in range(3)])
    assert guard.tried == [1, 1, 1] and guard.emitted == [Move()] * 3


def test_a_guard_replaces_what_is_forbidden_and_goes_on_from_there(small):
    guard = guarded(small, Red(1))
    chunks = list(guard.run())
    assert guard.tried == [1, 2, 1] and guard.emitted[1].name == "avoid 1"
    assert [("red" in chunk.prompt) for chunk in chunks] == [True, False, False]
    again = Stream(small, policies.parse("full"), PROMPT, noise=BranchNoise(5, (0, CODE + 1, 0)))
    first = again.step()
    again.set_prompt(chunks[1].prompt)
    assert frame_hash(chunks) == frame_hash([first, again.step(), again.step()]), "nothing is left of the tries"


def test_a_guard_stops_where_no_try_passes(small):
    guard = guarded(small, Red(1), kinds=("code",))
    chunks = guard.run()
    next(chunks)
    assert next(chunks, None) is None
    assert guard.stopped == "Stopped before chunk 2: none of 4 tries passed the check for red."
    assert guard.tried == [1, 4] and guard.report()["checked"] == 5
    guard = guarded(small, Red(), tries=1, kinds=("code",))
    assert not list(guard.run()) and guard.stopped.endswith("the only try did not pass the check for red.")


def test_what_is_learnt_from_is_told_apart_by_all_that_decides_frames(small, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"once")
    model = replace(small, weights=(weights,))

    def facts(model, roles=None):
        return facts_of(model, rewards.parse("continuity"), Moves(prompt=PROMPT, chunks=2), roles)

    first, roles = facts(model), small.roles
    others = [facts(model.with_steps(1)), facts(model, replace(roles, static=roles.static[::-1]))]
    weights.write_bytes(b"more")
    others.append(facts(model))
    assert [[name for name in first if first[name] != each[name]] for each in others] == [
        ["timesteps"],
        ["roles"],
        ["checkpoint"],
    ]


def test_a_head_ranks_what_a_guard_tries(small):
    head = Head(["noise 0", "code 1", "code 3, avoid 2"], len(Foresight(small, Moves(prompt=PROMPT)).state(Node())), {})
    torch.nn.init.zeros_(head.out.weight)
    head.out.bias.data = torch.tensor([0.1, 0.2, 0.9])
    guard = guarded(small, Red(), head, chunks=1)
    list(guard.run())
    assert guard.tried == [1] and guard.emitted[0].key == "code 3, avoid 2"
    guard = guarded(small, Red(), head, chunks=1, kinds=("code",))
    assert not list(guard.run()) and guard.tried == [2], "it was not trained on the other noises"


def test_guarded_streams_from_the_command_line(small, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    command = ["stream", "--chunks", "2", "--forbid", "tests.test_search:brightness"]
    monkeypatch.setattr("tests.test_search.brightness", lambda video, prompt: 1.0)
    assert main.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["guard"]["tries"] == [1, 1] and "no safety guarantee" in report["guard"]["note"]
    marks = iter([1.0])
    monkeypatch.setattr("tests.test_search.brightness", lambda video, prompt: next(marks, 0.0))
    assert main.main([*command, "--out", str(tmp_path / "kept.mp4")]) == 1
    captured = capsys.readouterr()
    assert "Stopped before chunk 2: none of 8 tries" in captured.err
    report = json.loads(captured.out)
    assert report["guard"]["tries"] == [1, 8] and len(report["chunks"]) == 1 and (tmp_path / "kept.mp4").exists()
    marks = iter([])
    assert main.main([*command, "--out", str(tmp_path / "none.mp4")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["guard"]["stopped"].startswith("Stopped before chunk 1") and report["chunks"] == []
    assert not (tmp_path / "none.mp4").exists()
    for options, sentence in [
        (["--forbid", "red"], "other videos than those of the tiny model's world"),
        (["--forbid", "swan"], "does not read 'swan'"),
        (["--path", "0,1"], "does not go with --path"),
    ]:
        assert main.main([*command, *options]) == 2
        assert sentence in capsys.readouterr().err
    assert main.main(["stream", "--head", "x"]) == 2 and "name one of them" in capsys.readouterr().err


def test_words_are_forbidden_without_naming_a_policy(small, monkeypatch, capsys):
    toy = replace(small, latent=(4, 12, 20))
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: toy))
    monkeypatch.setattr(rewards.Rules, "seen_in", lambda self, video: [])
    assert main.main(["stream", "--chunks", "1", "--forbid", "red,night"]) == 0
    assert json.loads(capsys.readouterr().out)["guard"]["tries"] == [1]


def brightness(video, prompt):
    return float(video.mean() / 255)


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--reward", "sharp"], "there is no reward 'sharp'"),
        (["--strategy", "bem"], "there is no strategy 'bem'"),
        (["--reward", "wish:left@3", "--chunks", "4"], "left@3 is wished after the end: the video has"),
        (["--reward", "rules:red"], "other videos than those of the tiny model's world"),
        (["--passes", "3"], "3 passes are not enough"),
        (["--width", "0"], "width must be at least 1"),
        (["--calibrate", "looks.json", "--width", "1"], "a --width of at least 2"),
        (["--calibrate", "looks.json", "--strategy", "beam,dvts"], "name one --strategy"),
        (["--moves", "colour"], "no kind of move 'colour'"),
        (["--strategy", "ets"], "nobody measured it; measure it with fkv search --calibrate FILE"),
        (["--strategy", "ets", "--looks", "README.md"], "README.md"),
        (["--looks", "README.md"], "--looks is for ets without a distance"),
        (["--head", "x"], "--head and --learn are for saffron"),
        (["--strategy", "beam,ets", "--learn", "2"], "--head and --learn are for saffron"),
        (["--strategy", "saffron", "--moves", "code", "--learn", "1", "--width", "0"], "width must be at least 1"),
    ],
)
def test_bad_input_of_the_command_is_one_sentence(small, monkeypatch, tmp_path, capsys, options, sentence):
    monkeypatch.setitem(registry.MODELS, "tiny", ModelEntry("tiny", "a stand-in", lambda device: small))
    assert main.main(["search", *options, "--out", str(tmp_path / "found")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "found").exists(), "no head is trained in vain"


def test_every_kind_of_move_runs_and_its_path_can_be_repeated(small):
    story = Storyboard((Cue(1, TO_NIGHT),))
    kinds = tuple(kind for kind in KINDS if kind != "code")
    moves = Moves(story, kinds, PROMPT, "full", small.policies, 2, 3, ("sunset",))

    def begin(noise):
        return Stream(small, policies.parse("full"), PROMPT, noise=noise)

    futures = Futures(begin, 0, rewards.parse("continuity"), 3)
    search = Search(
        strategies.parse("best-of"),
        moves,
        futures,
        3,
        9,
        None,
        1000,
        cost_of(small, moves, rewards.parse("continuity")),
    )
    list(search.run())
    leaves = [node for node in search.root if node.depth == 3]
    assert len(leaves) == 9
    for leaf in leaves[::2]:
        again = replay(begin, 0, leaf.path, story_of(leaf.lineage), 3)
        assert [chunk.prompt for chunk in again] == [node.prompt for node in leaf.lineage]
        assert [chunk.passes for chunk in again] == [node.passes for node in leaf.lineage]
        assert np.abs(again[-1].latents - leaf.chunk.latents).max() < 1e-3
