"""Rates of items, and of items by the attributes of users: what click models are held against."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from zsrbook.data.clicks import TEST, TRAIN, ClickData, Layout
from zsrbook.models.click_rates import AttributeRate, ItemRate


def clicked(n: int, chance: np.ndarray, seed: int = 0) -> ClickData:
    """n impressions of items for users, each a click by ``chance``, (items, colours, sizes); of users the id, a colour and a size are known.

    The last fifth is for the test.
    """
    items, colours, sizes = chance.shape
    rng = np.random.default_rng(seed)
    users = np.column_stack([np.arange(1, 101), rng.integers(colours, size=100) + 1, rng.integers(sizes, size=100) + 1]).astype(np.int32)
    user, item = rng.integers(100, size=n).astype(np.int32), rng.integers(items, size=n).astype(np.int32)
    click = rng.random(n) < chance[item, users[user, 1] - 1, users[user, 2] - 1]
    return ClickData(
        "made",
        Layout(("user", "colour", "size"), (), ("item",), ("item",)),
        {"user": 101, "colour": colours + 1, "size": sizes + 1, "item": items + 1},
        user,
        item,
        np.arange(n, dtype=float),
        click.astype(np.int8),
        np.zeros((n, 0), np.int32),
        users,
        np.arange(1, items + 1, dtype=np.int32)[:, None],
        np.zeros((0, 1), np.int32),
        np.zeros((n, 2), np.int64),
        np.where(np.arange(n) < 0.8 * n, TRAIN, TEST).astype(np.int8),
        np.zeros(100, bool),
    )


TASTES = np.array([[[0.1, 0.6], [0.4, 0.8]], [[0.5, 0.4], [0.1, 0.2]], [[0.3, 0.3], [0.3, 0.3]]])  # (item, colour, size)


def test_rates_by_attributes_are_their_formula():
    data, own = clicked(2000, TASTES), 7.0
    rows = data.rows(TRAIN)
    asked = data.rows(TEST)[:60]
    rate = ItemRate().fit(data).rate

    def logit(p):
        return np.log(p / (1 - p))

    expected = []
    for row in asked:
        item, found = data.item[row], logit(rate[data.item[row]])
        for column in (1, 2):
            alike = rows[(data.item[rows] == item) & (data.users[data.user[rows], column] == data.users[data.user[row], column])]
            found += logit((data.click[alike].sum() + own * rate[item]) / (len(alike) + own)) - logit(rate[item])
        expected.append(found)
    np.testing.assert_allclose(AttributeRate(own=own).fit(data).scores(data, asked), expected, rtol=1e-5)


def test_attributes_tell_what_the_rate_of_an_item_can_not():
    data = clicked(40_000, TASTES)
    test = data.rows(TEST)
    best = TASTES[data.item[test], data.users[data.user[test], 1] - 1, data.users[data.user[test], 2] - 1]
    of_all, ours, most = (
        roc_auc_score(data.click[test], scores) for scores in (*(m().fit(data).scores(data, test) for m in (ItemRate, AttributeRate)), best)
    )
    assert most - 0.01 < ours < most + 0.01
    assert of_all < most - 0.05


@pytest.mark.filterwarnings("error")
def test_a_user_is_no_attribute_and_none_must_have_clicked():
    data = clicked(500, TASTES)
    model = AttributeRate().fit(data)
    assert set(model.gains) == {1, 2}
    nothing = clicked(500, np.zeros((3, 2, 2)))
    assert not np.ptp(AttributeRate().fit(nothing).scores(nothing, nothing.rows(TEST)))
