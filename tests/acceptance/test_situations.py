"""Eighteen situations of a real network, each also with any single event lost or passed on twice.

Every situation is read in two ways at once: both PDSes as sources of their own, and both behind
one relay.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.ending import PATTERNS, Ending, compare_with_hosts, wait_for_ending
from tests.acceptance.real_service import Service
from tests.acceptance.stage import RealStage
from tests.network.harness import Account, Network
from tests.network.install import requires_network
from tests.network.oracles import Oracle
from tests.network.script import Fault, Told, Watch, kinds
from tests.network.situations import SITUATIONS, Situation
from tests.network.wires import Wires
from tests.postgres import TEMPLATE, Server
pytestmark = [pytest.mark.real_pds, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=["raw", "multikey"])
def stage(request, postgres: Server, tmp_path_factory) -> Iterator[RealStage]:
    requires_network()
    with ExitStack() as stack:
        network = stack.enter_context(
            Network.start(pds=2, accounts=1, records=1, did_doc=request.param, options=["--fronted", "--max-buffer", "60"])
        )
        wires = stack.enter_context(Wires(network))
        services = []
        for kind in ("pds", "relay"):
            url = postgres.service_url(stack.enter_context(postgres.database(template=TEMPLATE)))
            sources = [wires.relay.url] if kind == "relay" else [h.url for h in network.pds]
            service = stack.enter_context(Service(network, url, folder=tmp_path_factory.mktemp(kind), sources=sources, kind=kind))
            for pattern in PATTERNS:
                service.rows("select sync.track_collections(array[%s])", pattern)
            service.start()
            services.append(service)
        yield RealStage(network, wires, tuple(services))


@pytest.fixture(scope="module")
def oracles(stage):
    with Oracle("oracle.mjs", ["--plc", stage.network.plc_url]) as a, Oracle("oracle_atcute.mjs") as b:
        yield a, b


def test_probe(stage, oracles):
    t=time.time()
    only = os.environ.get("ONLY")
    names = [s for s in SITUATIONS if not only or s.name in only.split(",")]
    accounts = stage.prepare(len(names))
    print("prepared", time.time()-t)
    def play(s, account, fault=None, event=None):
        t=time.time()
        out=[]
        watch = Watch(frozenset([account.did]), fault, event.host if event else 0, event.number if event else 0)
        if s.name == "create-account": watch.dids=frozenset()
        with stage.wires.script.watching(watch):
            try:
                end = s.play(stage.playing(watch), account)
                stage.settle()
                e = Ending.read(stage.network, end, status=s.status, oracles=oracles)
                for service in stage.services:
                    try:
                        flaws = wait_for_ending(service, e)
                        healed=""
                        if flaws:
                            compare_with_hosts(service)
                            healed = wait_for_ending(service, e)
                        out.append((service.kind, flaws, healed))
                    except AssertionError as x:
                        out.append((service.kind, "TIMEOUT", str(x)[:1200]))
            except BaseException as x:
                out.append(repr(x)[:2000])
        kk=[]
        for service in stage.services:
            kk.append([ (k if k not in('account','identity') else f"{k}:{v}") + ("" if l or k in("account","identity","purge","snapshot") else "*") for k,l,v in service.rows("select kind,is_live,value::text from sync.change_log where did=%s order by change_id", account.did)][-12:])
        bad = any(not (isinstance(o,tuple) and o[1]==[]) for o in out)
        print(s.name, fault, event, "struck", watch.struck, f"{time.time()-t:.1f}", out if bad else "ok", flush=True)
        if fault is None or (bad and os.environ.get("V")):
            print("    ", kinds(watch.told)[:14]); print("    pds", kk[0]); print("    relay", kk[1])
        return watch
    with ThreadPoolExecutor(5) as pool:
        clean = list(zip(names, pool.map(lambda p: None if p[0].is_alone else play(*p), zip(names, accounts))))
    clean = [(s, w if w else play(s, a)) for (s, w), a in zip(clean, accounts)]
    print("clean", time.time()-t)
    if os.environ.get("FAULTS"):
        jobs=[]
        for s,w in clean:
            told=w.told
            if len(told)>14: told=random.Random(1).sample(told,4)+told[-2:]
            for ev in told:
                for f in os.environ["FAULTS"].split(","):
                    jobs.append((s,f,ev))
        accounts = stage.prepare(len(jobs))
        todo=list(zip(jobs,accounts))
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda j: None if j[0][0].is_alone else play(j[0][0], j[1], j[0][1], j[0][2]), todo))
        for (s,f,ev),a in todo:
            if s.is_alone: play(s,a,f,ev)
        print("faults", len(jobs), time.time()-t)
