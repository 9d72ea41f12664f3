"""Places per address, counted in one process."""

from __future__ import annotations

from chat_gevent.places import Places


def test_an_address_has_so_many_places() -> None:
    """What is given back may be taken again; addresses have nothing to do with each other."""
    places = Places(2)
    assert places.take("192.0.2.1")
    assert places.take("192.0.2.1")
    assert places.full("192.0.2.1")
    assert not places.take("192.0.2.1")
    assert places.take("192.0.2.2")
    places.give_back("192.0.2.1")
    assert not places.full("192.0.2.1")
    assert places.take("192.0.2.1")
    assert places.full("192.0.2.1")
    assert not places.take("192.0.2.1")
