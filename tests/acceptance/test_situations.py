"""Eighteen situations of a real network, each also with any single event lost or passed on twice.

Every situation is read in two ways at once: both PDSes as sources of their own, and both behind
one relay. In a normal run one event of each situation is lost and one doubled, chosen by
STANDPIPE_TEST_SEED (of those that stop servers one with each form of DID documents); with
STANDPIPE_TEST_LONG=1 it is every event with each.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.acceptance.ending import PATTERNS
from tests.acceptance.expected_logs import check_log
from tests.acceptance.plays import (
    Play,
    Theatre,
    assert_fold_equals_records,
    choose_all_events,
    choose_some_events,
)
from tests.acceptance.real_service import Service
from tests.acceptance.stage import RealStage
from tests.network.harness import Network
from tests.network.install import requires_network
from tests.network.oracles import Oracle
from tests.network.script import Fault
from tests.network.situations import SITUATIONS
from tests.network.wires import Wires
from tests.postgres import TEMPLATE, Server

# The first test may have to install the network's packages.
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]

IS_LONG = "STANDPIPE_TEST_LONG" in os.environ
SEED = os.environ.get("STANDPIPE_TEST_SEED", "1")
OPTIONS = ("--fronted", "--max-buffer", "60")
FOLD = "fold"


@pytest.fixture(scope="module", params=["raw", "multikey"])
def theatre(
    request: pytest.FixtureRequest, postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Theatre]:
    """Run two PDSes, a relay and two services, once for each form of DID documents."""
    requires_network()
    form = request.param
    with ExitStack() as stack:
        network = stack.enter_context(
            Network.start(pds=2, accounts=1, records=1, did_doc=form, options=OPTIONS)
        )
        wires = stack.enter_context(Wires(network))
        services = []
        for kind in ("pds", "relay"):
            database = stack.enter_context(postgres.database(template=TEMPLATE))
            service = Service(
                network,
                postgres.service_url(database),
                folder=tmp_path_factory.mktemp(kind),
                sources=[wires.relay.url] if kind == "relay" else (),
                kind=kind,
                # Two sources of one lane, or one source of two.
                lanes=2 if kind == "relay" else 1,
            )
            services.append(stack.enter_context(service))
            service.rows("select sync.track_collections(%s)", list(PATTERNS))
            service.rows("select sync.create_consumer(%s)", FOLD)
            service.start()
        oracles = [
            stack.enter_context(Oracle("oracle.mjs", ["--plc", network.plc_url])),
            stack.enter_context(Oracle("oracle_atcute.mjs")),
        ]
        stage = RealStage(network, wires, tuple(services))
        stage.wait_for_subscribers()
        yield Theatre(stage, oracles, form=form)
        stage.stop_services()


@pytest.fixture(scope="module")
def undisturbed(theatre: Theatre) -> dict[str, Play]:
    """Play every situation once, with every event passed on as it came."""
    plays = theatre.play_all((situation, None, None) for situation in SITUATIONS)
    return {play.situation.name: play for play in plays}


@pytest.mark.rule("MG-03", "MG-04", "MG-06", "AC-15", "CU-08", "CU-09", "CU-10", "D-04", "D-11")
@pytest.mark.parametrize("name", [situation.name for situation in SITUATIONS])
def test_a_situation_ends_as_its_hosts_say(undisturbed: dict[str, Play], name: str) -> None:
    play = undisturbed[name]
    if play.error is not None:
        raise play.error
    assert play.told, "nothing has happened"
    assert set(play.logs) == {"pds", "relay"}
    for source_kind, log in play.logs.items():
        check_log(name, log, source_kind)


@pytest.mark.rule("CU-08")
def test_who_reads_too_slowly_was_given_up(theatre: Theatre, undisturbed: dict[str, Play]) -> None:
    assert undisturbed["slow-consumer"].error is None
    query = "select count(*) > 0 from sync.problems where detail like 'ConsumerTooSlow%%'"
    for service in theatre.stage.services:
        assert service.rows(query) == [(True,)], service.kind


@pytest.mark.timeout(7200)
@pytest.mark.rule("MG-01", "MG-05", "CM-17", "CM-18", "SN-07", "AC-18", "CU-06", "CU-09")
def test_any_single_event_may_be_lost_or_doubled(
    theatre: Theatre, undisturbed: dict[str, Play], request: pytest.FixtureRequest
) -> None:
    plays = list(undisturbed.values())
    assert all(play.told for play in plays), "some situation was not played to its end"
    alone: Fault = "lost" if theatre.form == "raw" else "doubled"
    chosen = (
        choose_all_events(plays)
        if IS_LONG
        else choose_some_events(plays, alone=alone, seed=f"{SEED} {theatre.form}")
    )
    disturbed = theatre.play_all(chosen)
    tell(request, theatre.form, disturbed)
    for play in disturbed:
        print(play)
    failed = [str(play) for play in disturbed if play.error is not None]
    assert not failed, "\n\n".join(failed)
    faults = {(play.situation.name, play.fault) for play in disturbed}
    count_alone = sum(situation.is_alone for situation in SITUATIONS)
    assert len(faults) == 2 * len(SITUATIONS) - (0 if IS_LONG else count_alone)
    every_event = 2 * sum(len(play.told) for play in plays)
    assert len(disturbed) == (every_event if IS_LONG else len(faults))


def test_no_change_of_all_that_came_twice_or_is_missing(
    theatre: Theatre, undisturbed: dict[str, Play]
) -> None:
    assert len(undisturbed) == len(SITUATIONS) == 18
    for service in theatre.stage.services:
        assert_fold_equals_records(service, FOLD)


def tell(request: pytest.FixtureRequest, form: str, plays: list[Play]) -> None:
    """Say on the terminal how many situations and events were played, and what healed losses."""
    healed = Counter(play.healed_by or "themselves" for play in plays if play.fault == "lost")
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    text = (
        f"{form}: {len({play.situation.name for play in plays})} situations, {len(plays)} times"
        f" with one event lost or doubled, each by two kinds of sources;"
        f" losses healed by {dict(healed)}"
    )
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(f"\n{text}", flush=True)
