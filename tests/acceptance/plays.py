"""Play situations, one event of each lost or doubled, and see that they end right."""

import itertools
import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.acceptance.ending import Ending, compare_with_hosts, wait_for_ending
from tests.acceptance.real_service import Service
from tests.acceptance.stage import RealStage
from tests.network.content import POST, post
from tests.network.harness import Account
from tests.network.oracles import Oracle
from tests.network.script import Fault, Told, Watch, kinds
from tests.network.situations import Situation

# How many situations are played side by side.
PLAYERS = 6
# What heals a loss that nobody can notice.
WRITE, COMPARISON, TOLD_AGAIN = "one more write", "a comparison", "being told again"
FAULTS: tuple[Fault, ...] = ("lost", "doubled")
_CHAIN = {"#commit", "#sync"}

Word = tuple[str, str | None, bool, str | None]


@dataclass(slots=True)
class Play:
    """One situation with one account, and how it went."""

    situation: Situation
    account: Account
    fault: Fault | None = None
    event: Told | None = None
    told: list[Told] = field(default_factory=list)
    healed_by: str = ""
    # By kind of source: (kind, rkey, is_live, status of an account) of what was logged.
    logs: dict[str, list[Word]] = field(default_factory=dict)
    error: BaseException | None = None
    end: Account | None = None
    # Who has not noticed a loss that nobody can notice.
    behind: list[Service] = field(default_factory=list)
    took_s: float = 0.0

    def __str__(self) -> str:
        went = f": {self.error}" if self.error is not None else f" {self.healed_by}".rstrip()
        what = f" with {self.event} {self.fault}" if self.fault is not None else ""
        return f"{self.situation.name}{what}{went} ({self.took_s:.1f} s)"


class Theatre:
    """A stage, and those who know how every play has to end."""

    def __init__(self, stage: RealStage, oracles: Sequence[Oracle], *, form: str) -> None:
        self.stage = stage
        self.form = form
        self._oracles = tuple(oracles)

    def play_all(self, parts: Iterable[tuple[Situation, Fault | None, Told | None]]) -> list[Play]:
        """Play with fresh accounts: side by side, and after that those that stop servers."""
        chosen = list(parts)
        accounts = self.stage.prepare(len(chosen))
        plays = [
            Play(situation, account, fault, event)
            for (situation, fault, event), account in zip(chosen, accounts, strict=True)
        ]
        together = [play for play in plays if not play.situation.is_alone]
        with ThreadPoolExecutor(PLAYERS) as players:
            list(players.map(self._play, together))
        # Only now: a comparison looks at every repo, and would hide what others did not notice.
        self._make_up(together)
        for play in plays:
            if play.situation.is_alone:
                self._play(play)
                self._make_up([play])
        return plays

    def _play(self, play: Play) -> None:
        started_at = time.monotonic()
        try:
            self._perform(play)
        except Exception as error:  # noqa: BLE001  (the other plays go on; the test tells)
            play.error = error
        play.took_s = time.monotonic() - started_at

    def _perform(self, play: Play) -> None:
        watch = Watch(frozenset([play.account.did]), play.fault)
        if play.event is not None:
            watch.host, watch.number = play.event.host, play.event.number
        # A comparison that is still under way would race with what happens now.
        self.stage.wait_for_gaps()
        marks = [_last_change(service) for service in self.stage.services]
        with self.stage.wires.script.watching(watch):
            stage = self.stage.playing(watch)
            end = play.situation.play(stage, play.account)
            stage.settle()
        play.told = watch.told
        if play.fault is not None:
            assert watch.struck is not None, f"there was no such event: {kinds(watch.told)}"
        self._check(play, watch, end)
        for service, mark in zip(self.stage.services, marks, strict=True):
            play.logs[service.kind] = _log(service, end, after=mark)

    def _check(self, play: Play, watch: Watch, end: Account) -> None:
        """Demand the right end of every service, unless it cannot know of a loss."""
        may_miss = watch.struck is not None and is_unnoticeable(watch, play.situation)
        ending = self._ending(play, end)
        play.end = end
        play.behind = [
            service
            for service in self.stage.services
            if wait_for_ending(service, ending, gives_up=may_miss)
        ]
        if play.behind:
            assert watch.struck is not None
            play.healed_by = healer(watch.struck)

    def _make_up(self, plays: Sequence[Play]) -> None:
        """Do what heals the losses that nobody can notice, then demand the right end."""
        behind = [play for play in plays if play.behind]
        for play in behind:
            self._heal(play)
        self.stage.settle()
        for service in self.stage.services:
            if any(service in play.behind and play.healed_by == COMPARISON for play in behind):
                compare_with_hosts(service)
        for play in behind:
            try:
                assert play.end is not None
                ending = self._ending(play, play.end)
                for service in self.stage.services:
                    wait_for_ending(service, ending)
            except Exception as error:  # noqa: BLE001  (as above)
                play.error = error

    def _heal(self, play: Play) -> None:
        network, end = self.stage.network, play.end
        assert end is not None
        if play.healed_by == WRITE:
            network.create_record(end, POST, post("one more"))
        elif play.healed_by == TOLD_AGAIN:
            network.control("emit", pds=end.pds, did=end.did, kind="account")

    def _ending(self, play: Play, end: Account) -> Ending:
        status = play.situation.status
        return Ending.read(self.stage.network, end, status=status, oracles=self._oracles)


def is_unnoticeable(watch: Watch, situation: Situation) -> bool:
    """Tell whether nothing that came after a lost event shows that it is missing.

    A later #commit or #sync of the same host shows that another one was lost, or that another key
    signs; a later #account or #identity says what the lost one said. (A loss may be found
    nevertheless, and mostly is.)
    """
    lost = watch.struck
    assert lost is not None
    alike = _CHAIN if lost.kind in _CHAIN else {lost.kind}
    if lost.kind == "#identity" and situation.has_new_key:
        alike = alike | _CHAIN
    return watch.fault == "lost" and not any(
        event.host == lost.host and event.number > lost.number and event.kind in alike
        for event in watch.told
    )


def healer(lost: Told) -> str:
    """Say what makes up for a loss that nobody can notice.

    A PDS that does not know an account proves no deletion (D-11), so no comparison finds that.
    """
    if lost.kind in _CHAIN:
        return (WRITE, COMPARISON)[lost.number % 2]
    return TOLD_AGAIN if lost.word == "deleted" else COMPARISON


def choose_all_events(plays: Sequence[Play]) -> list[tuple[Situation, Fault, Told]]:
    """Choose every event of every situation, to be lost and to be doubled."""
    return [
        (play.situation, fault, event)
        for play, fault in itertools.product(plays, FAULTS)
        for event in play.told
    ]


def choose_some_events(
    plays: Sequence[Play], *, alone: Fault, seed: str
) -> list[tuple[Situation, Fault, Told]]:
    """Choose one event of every situation to be lost, and one to be doubled.

    Those that are played alone take long: they suffer one fault only, the other one elsewhere.
    """
    chance = random.Random(seed)
    return [
        (play.situation, fault, chance.choice(play.told))
        for play, fault in itertools.product(plays, FAULTS)
        if fault == alone or not play.situation.is_alone
    ]


def assert_fold_equals_records(service: Service, consumer: str) -> None:
    """Fold everything a consumer is given; nothing may come twice, or be missing in the end."""
    state: dict[tuple[str, str, str], str] = {}
    query = "select kind, did, collection, rkey, cid from sync.read_changes(%s, 5000)"
    while rows := service.rows(query, consumer):
        for kind, did, collection, rkey, cid in rows:
            _fold(state, kind, (did, collection, rkey), cid)
    records = "select did, collection, rkey, cid from sync.records"
    assert state == {tuple(key): cid for *key, cid in service.rows(records)}


def _fold(
    state: dict[tuple[str, str, str], str], kind: str, key: tuple[str, str, str], cid: str
) -> None:
    did, collection, _ = key
    if kind == "purge":
        for known in [k for k in state if k[0] == did and collection in (None, k[1])]:
            del state[known]
    elif kind == "delete":
        del state[key]
    elif kind in ("create", "update"):
        assert (key in state) == (kind == "update"), f"{kind} of {key}"
        state[key] = cid


def _last_change(service: Service) -> int:
    ((last,),) = service.rows("select coalesce(max(change_id), 0) from sync.change_log")
    return int(last)


def _log(service: Service, account: Account, *, after: int) -> list[Word]:
    query = (
        "select kind, rkey, is_live, case when kind = 'account' then value ->> 'status' end"
        " from sync.change_log where did = %s and change_id > %s order by change_id"
    )
    return service.rows(query, account.did, after)
