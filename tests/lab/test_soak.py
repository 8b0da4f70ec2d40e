"""Twenty guests, sixty volumes, six shares, four clients, and everything fails at random.

``MOORLINE_SOAK_SEED`` repeats a run's dice (not its timing), ``MOORLINE_SOAK_SECONDS`` makes
it longer.
"""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import pytest
from conftest import GUESTS, Pool
from libvirt_rig import until
from scene import Scene
from soak import Agent, Caller, Farm, Fire, answers, attached, converged, libvirt_now, under_fire

from lab.guest import Guest
from moorline.local_api.client import Client

SEED = int(os.environ.get("MOORLINE_SOAK_SEED") or random.randrange(1 << 32))
SECONDS = float(os.environ.get("MOORLINE_SOAK_SECONDS") or 30)
SHARES, CLIENTS, SMALL, EACH = 6, 4, 18, 3
PATIENCE = 45.0


@pytest.mark.timeout(SECONDS + 270)
def test_whatever_fails_every_promise_is_kept(
    scene: Scene, pool: Pool, guest: Guest, second_guest: Guest, record_property: Any
) -> None:
    logging.getLogger("soak").warning("MOORLINE_SOAK_SEED=%d", SEED)
    record_property("soak_seed", SEED)
    chance = random.Random(SEED)
    shares = [scene.share.cluster.volume(f"soak{n}") for n in range(SHARES)]
    farm = Farm(shares, list(GUESTS), SMALL, EACH)
    config = scene.write("moorline.conf", "[moorline]\nagent_sweep_every = 3\n")
    agent = Agent(scene.directory / "moorline", config)
    client = Client(agent.socket)
    farm.define()
    agent.start()
    try:
        until(lambda: answers(client), 20)
        callers = [
            Caller(Client(agent.socket), farm.pairs[n::CLIENTS], random.Random(chance.random()))
            for n in range(CLIENTS)
        ]
        fire = Fire(agent, farm, random.Random(chance.random()))
        under_fire(callers, fire, SECONDS)
        figures = {
            "answered": sum(caller.answered for caller in callers),
            "failed": sum(caller.failed for caller in callers),
            **fire.did,
        }
        record_property("soak", figures)
        logging.getLogger("soak").warning("%s", figures)

        farm.stop_guests()
        until(lambda: answers(client), 20)
        wanted = attached(client, farm.pairs)
        for caller in callers:
            for pair, promised in caller.promised.items():
                assert (pair in wanted) in promised, f"{pair.volume} on {pair.guest} was lost"
        converged(client, farm, wanted, PATIENCE)
        assert figures["answered"] > 0

        farm.start_guests()
        farm.stop_guests()
        for pair in wanted:
            client.attachments.detach(pair.guest, pair.volume)
        converged(client, farm, set(), PATIENCE)
        assert agent.stop() == 0
        assert scene.is_clean()
    except BaseException:
        logging.getLogger("soak").error("%s", agent.log()[-8000:])
        raise
    finally:
        agent.kill()
        farm.stop_guests()
        farm.undefine()
        with libvirt_now() as connection:
            pool.drop(connection)
