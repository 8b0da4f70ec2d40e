"""Who waits for a guest is told of it, and looks anyway after a while."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.demo import until
from moorline.errors import Uncertain
from moorline.hypervisors.libvirt.unplug_wait import News, NewsOfGuest, Requests
from moorline.model import GuestId, VolumeId
from moorline.ports import Wake

ONE, TWO = GuestId("1"), GuestId("2")
NEVER, SECONDS = 600.0, 10


def waits(news: NewsOfGuest) -> threading.Event:
    """Set as soon as the wait is over."""
    over = threading.Event()

    def wait() -> None:
        news.wait()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    return over


@pytest.mark.parametrize("told", [ONE, None])
def test_what_is_told_of_the_guest_or_of_all_ends_the_wait(told: GuestId | None) -> None:
    news, heard = News(), []
    with news.told(heard.append) as tell, news.of(ONE) as mine:
        mine._seconds = NEVER
        over = waits(mine)
        tell(TWO)
        assert not over.wait(0.1)
        tell(told)
        assert over.wait(SECONDS)
        assert not waits(mine).wait(0.1), "it was told once"
        tell(told)
    assert heard == [TWO, told, told], "who listens is told all of it"
    assert not news._waiting


def test_what_is_told_before_one_waits_is_not_lost() -> None:
    news = News()
    with news.told(lambda guest: None) as tell, news.of(ONE) as mine:
        mine._seconds = NEVER
        tell(ONE)  # between the request and the wait
        assert waits(mine).wait(SECONDS)


def test_without_news_it_is_looked_at_all_the_same() -> None:
    news = News()
    with news.of(ONE) as unheard, news.told(lambda guest: None), news.of(ONE) as lost:
        for mine in (unheard, lost):
            assert waits(mine).wait(SECONDS)
        assert unheard._seconds < lost._seconds, "who hears of it asks less often"
    with news.of(ONE) as again:
        assert again._seconds == unheard._seconds, "nobody listens any more"


def test_many_wait_for_one_guest() -> None:
    news = News()
    with news.told(lambda guest: None) as tell, ThreadPoolExecutor(4) as pool:
        begun = threading.Barrier(5)

        def wait() -> bool:
            with news.of(ONE) as mine:
                mine._seconds = NEVER
                begun.wait(SECONDS)
                mine.wait()
                return True

        waiting = [pool.submit(wait) for _ in range(4)]
        begun.wait(SECONDS)
        tell(ONE)
        assert all(each.result(SECONDS) for each in waiting)


def test_nobody_listens_for_one_detach_alone() -> None:
    news, begun, ended = News(), threading.Semaphore(0), threading.Event()

    def watch(wake: Wake, stop: threading.Event) -> None:
        with news.told(wake):
            begun.release()
            stop.wait(SECONDS)
        ended.set()

    news.listen(watch)
    assert not begun.acquire(timeout=0.1)
    news.listen(watch)
    assert begun.acquire(timeout=SECONDS)
    news.listen(watch)
    assert not begun.acquire(timeout=0.1)
    news.close()
    assert ended.wait(SECONDS)


def test_nobody_listens_twice() -> None:
    news = News()

    def watch(wake: Wake, stop: threading.Event) -> None:
        raise AssertionError

    with news.told(lambda guest: None):
        news.listen(watch)
        news.listen(watch)


def asks(requests: Requests, guest: GuestId = ONE, volume: str = "v") -> bool:
    with requests.due(guest, VolumeId(volume)) as due:
        return due


def test_a_guest_that_has_not_answered_is_not_asked_again_at_once() -> None:
    requests = Requests()
    assert [asks(requests) for _ in range(3)] == [True, False, False]
    assert asks(requests, TWO)
    assert asks(requests, ONE, "another")
    requests.done(ONE, VolumeId("v"))
    assert asks(requests), "it has the disk anew"


@pytest.mark.parametrize("error", [Uncertain("the connection broke"), KeyboardInterrupt()])
def test_what_failed_was_not_asked(error: BaseException) -> None:
    requests = Requests()
    with pytest.raises(type(error)), requests.due(ONE, VolumeId("v")):
        raise error
    assert asks(requests)


def test_who_was_only_looking_does_not_undo_the_request() -> None:
    requests = Requests()
    assert asks(requests)
    with pytest.raises(Uncertain), requests.due(ONE, VolumeId("v")):
        raise Uncertain("the connection broke")
    assert not asks(requests)


def test_a_guest_that_missed_the_request_is_asked_again() -> None:
    requests = Requests(again_seconds=0.0)
    assert [asks(requests) for _ in range(2)] == [True, True]


def test_who_looks_again_and_again_does_not_put_off_the_next_request() -> None:
    requests = Requests(again_seconds=0.2)
    assert asks(requests)
    until(lambda: asks(requests), "for the request to be due again", 10)
