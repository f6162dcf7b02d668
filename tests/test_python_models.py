"""clients/python with the libraries that vectors come from. `make test-examples` runs this where PyTorch and Keras are."""

import numpy as np
import pytest
from vector_ext import LoadError, encode, export, load

rng = np.random.default_rng(7)
INPUTS = rng.standard_normal((1000, 6)).astype(np.float32)


@pytest.fixture
def items(db):
    db.execute("CREATE TABLE items (id int, label int, embedding vector(4)); CREATE TABLE halves (id int, embedding halfvec(4))")
    return db


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: `make test-examples` installs it")


@pytest.fixture
def network(torch):
    torch.manual_seed(1)
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)), nn.ReLU(), nn.Linear(4, 3))


def expected(network, torch, layers):
    network.eval()
    with torch.no_grad():
        result = network[:layers](torch.as_tensor(INPUTS)).numpy()
    network.train()
    return result


def all_of(batches):
    vectors, columns = zip(*batches)
    return np.concatenate(vectors), {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}


def test_layer_of_a_module(items, network, torch):
    """What a hook has seen is in the table; the module is left as it was."""
    network[2].eval()
    want = expected(network, torch, 3)
    network.train()
    network[2].eval()
    assert load(items, "items", encode(network, INPUTS, {"id": np.arange(1000)}, layer="2", batch_size=300)) == 1000
    ids, vectors = export(items, "items")
    np.testing.assert_allclose(vectors[np.argsort(ids)], want, atol=1e-6)
    assert [part.training for part in network] == [True, True, False, True] and network[1][1].training
    assert not any(part._forward_hooks for part in network.modules())
    nested, _ = all_of(encode(network, INPUTS, layer="1.1"))
    np.testing.assert_allclose(nested, expected(network, torch, 2), atol=1e-6)
    whole, _ = all_of(encode(network, torch.as_tensor(INPUTS, dtype=torch.float64)))
    np.testing.assert_allclose(whole, expected(network, torch, 4), atol=1e-6)


def test_hooks_go_when_it_fails(network):
    with pytest.raises(LoadError, match="has no layer 9; it has 0, 1, 1.0, 1.1, 2, 3"):
        list(encode(network, INPUTS, layer="9"))
    with pytest.raises(RuntimeError):
        list(encode(network, INPUTS[:, :5], layer="2"))
    batches = encode(network, INPUTS, layer="2", batch_size=10)
    next(batches)
    batches.close()
    assert network.training and not any(part._forward_hooks for part in network.modules())


def test_datasets_of_torch(items, network, torch):
    """A Dataset is batched, a DataLoader has its own batches, and what follows the input are columns."""
    from torch.utils.data import DataLoader, TensorDataset

    labels = torch.arange(1000) % 7
    dataset = TensorDataset(torch.as_tensor(INPUTS), torch.arange(1000), labels)
    for source in (dataset, DataLoader(dataset, 64)):
        items.execute("TRUNCATE items")
        assert load(items, "items", encode(network, source, ["id", "label"], layer="2", batch_size=64)) == 1000
        assert items.execute("SELECT count(*) FROM items WHERE label = id % 7").fetchone() == (1000,)
        ids, vectors = export(items, "items")
        np.testing.assert_allclose(vectors[np.argsort(ids)], expected(network, torch, 3), atol=1e-6)


def test_half_precision_and_devices(items, network, torch):
    vectors, _ = all_of(encode(network, INPUTS, layer="2", half=True))
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, expected(network, torch, 3), atol=0.05)
    assert load(items, "halves", encode(network, INPUTS, layer="2", half=True, device="cpu")) == 1000
    with pytest.raises(RuntimeError):
        list(encode(network, INPUTS, device="no such device"))


class Words:
    """As a language model: named arguments, and an output that is no array."""

    @staticmethod
    def make(torch):
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.words = torch.nn.Embedding(50, 4)
                self.sequence = torch.nn.GRU(4, 4, batch_first=True)

            def forward(self, tokens, mask):
                return self.sequence(self.words(tokens) * mask[..., None])

        torch.manual_seed(1)
        return Model()


def test_named_arguments_and_states(items, torch):
    model = Words.make(torch)
    tokens, mask = rng.integers(0, 50, (20, 5)), np.ones((20, 5), np.float32)
    batches = [{"tokens": tokens[i:i + 8], "mask": mask[i:i + 8], "id": np.arange(i, min(i + 8, 20))} for i in range(0, 20, 8)]
    with pytest.raises(LoadError, match="the output is a tuple, not an array: give a `pool`"):
        list(encode(model, iter(batches), ["id"]))
    assert load(items, "items", encode(model, iter(batches), ["id"], pool=lambda output: output[1][0])) == 20
    with torch.no_grad():
        want = model(torch.as_tensor(tokens), torch.as_tensor(mask))[1][0].numpy()
    ids, vectors = export(items, "items")
    np.testing.assert_allclose(vectors[np.argsort(ids)], want, atol=1e-6)
    by_layer, _ = all_of(encode(model, iter(batches), ["id"], layer="words", pool=lambda output: output.mean(1)))
    assert by_layer.shape == (20, 4)


def test_tensors_are_loaded(items, torch):
    """Also with a gradient, in other precisions, and not contiguous."""
    values = torch.as_tensor(INPUTS[:, :4])
    for tensor, tolerance in ((values.clone().requires_grad_(), 0), (values.to(torch.bfloat16), 0.02), (values.half(), 0.002),
                              (torch.as_tensor(INPUTS).T.contiguous().T[:, :4], 0)):
        items.execute("TRUNCATE items")
        assert load(items, "items", tensor, {"id": torch.arange(1000)}) == 1000
        ids, vectors = export(items, "items")
        np.testing.assert_allclose(vectors[np.argsort(ids)], INPUTS[:, :4], atol=tolerance, rtol=tolerance)


@pytest.fixture
def keras():
    keras = pytest.importorskip("keras", reason="Keras is not installed: `make test-examples` installs it")
    keras.utils.set_random_seed(1)
    return keras


@pytest.mark.parametrize("built", ["functional", "sequential"])
def test_layer_of_keras(items, keras, built):
    layers = [keras.layers.Dense(4, name="features"), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    if built == "sequential":
        model = keras.Sequential([keras.Input((6,)), *layers])
    else:
        inputs = output = keras.Input((6,))
        for layer in layers:
            output = layer(output)
        model = keras.Model(inputs, output)
    want = np.asarray(layers[0](INPUTS))
    assert load(items, "items", encode(model, INPUTS, {"id": np.arange(1000)}, layer="features", batch_size=300)) == 1000
    ids, vectors = export(items, "items")
    np.testing.assert_allclose(vectors[np.argsort(ids)], want, atol=1e-6)
    whole, _ = all_of(encode(model, INPUTS))
    np.testing.assert_allclose(whole, np.asarray(model(INPUTS, training=False)), atol=1e-6)
    with pytest.raises(LoadError, match="has no layer 9; it has .*features, "):
        list(encode(model, INPUTS, layer="9"))
    with pytest.raises(LoadError, match="`device` is for modules of PyTorch"):
        list(encode(model, INPUTS, device="cpu"))


def test_a_model_that_has_no_graph(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.features = keras.layers.Dense(4, name="features")

        def call(self, inputs):
            return self.features(inputs)

    assert all_of(encode(Own(), INPUTS))[0].shape == (1000, 4)
    model = Own()
    model(INPUTS)
    with pytest.raises(LoadError, match="the output of the layer features cannot be had"):
        list(encode(model, INPUTS, layer="features"))


def test_tensorflow(items):
    """Batches of tf.data, with bytes as texts; tensors and variables."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-examples` installs it")
    items.execute("ALTER TABLE items ADD name text")
    dataset = tf.data.Dataset.from_tensor_slices((INPUTS, np.arange(1000), [f"n{i}é" for i in range(1000)])).batch(300)
    assert load(items, "items", encode(lambda batch: batch[:, :4] * 2, dataset, ["id", "name"])) == 1000
    assert items.execute("SELECT count(*) FROM items WHERE name = 'n' || id || 'é'").fetchone() == (1000,)
    for tensor in (tf.constant(INPUTS[:, :4]), tf.Variable(INPUTS[:, :4]), tf.cast(INPUTS[:, :4], tf.bfloat16)):
        items.execute("TRUNCATE items")
        assert load(items, "items", tensor, {"id": tf.range(1000)}) == 1000
        ids, vectors = export(items, "items")
        np.testing.assert_allclose(vectors[np.argsort(ids)], INPUTS[:, :4], rtol=0.01)
    assert load(items, "items", (batch[:, :4] for batch, _, _ in dataset)) == 1000


def test_jax(items):
    jnp = pytest.importorskip("jax", reason="JAX is not installed: `make test-python` installs it").numpy
    for array, tolerance in ((jnp.asarray(INPUTS[:, :4]), 0), (jnp.asarray(INPUTS[:, :4], jnp.bfloat16), 0.01)):
        items.execute("TRUNCATE items")
        assert load(items, "items", array, {"id": jnp.arange(1000)}) == 1000
        ids, vectors = export(items, "items")
        np.testing.assert_allclose(vectors[np.argsort(ids)], INPUTS[:, :4], rtol=tolerance)
    doubled, _ = all_of(encode(lambda batch: jnp.asarray(batch) * 2, INPUTS, batch_size=300))
    np.testing.assert_array_equal(doubled, INPUTS * 2)


def test_hugging_face(items):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: `make test-python` installs it")
    dataset = datasets.Dataset.from_dict({"embedding": INPUTS[:, :4].tolist(), "id": list(range(1000)), "text": [f"n{i}" for i in range(1000)]})
    items.execute("ALTER TABLE items ADD text text")
    for source in (dataset, dataset.with_format("numpy"), dataset.with_format("arrow")):
        items.execute("TRUNCATE items")
        assert load(items, "items", source, ["id", "text"]) == 1000
        ids, vectors = export(items, "items")
        np.testing.assert_array_equal(vectors[np.argsort(ids)], INPUTS[:, :4])
    items.execute("TRUNCATE items")
    assert load(items, "items", encode(np.negative, dataset, ["id", "text"], source="embedding", batch_size=300)) == 1000
    assert items.execute("SELECT count(*) FROM items WHERE text = 'n' || id").fetchone() == (1000,)
    ids, vectors = export(items, "items")
    np.testing.assert_array_equal(vectors[np.argsort(ids)], -INPUTS[:, :4])


# Without any of them


def first_four(batch):
    return np.asarray(batch)[:, :4]


def test_functions(items):
    assert load(items, "items", encode(first_four, INPUTS, {"id": np.arange(1000)}, batch_size=300)) == 1000
    ids, vectors = export(items, "items")
    np.testing.assert_array_equal(vectors[np.argsort(ids)], INPUTS[:, :4])
    mappings = [{"x": row, "id": i} for i, row in enumerate(INPUTS)]
    vectors, columns = all_of(encode(first_four, mappings, ["id"], source="x"))
    np.testing.assert_array_equal(vectors, INPUTS[:, :4])
    np.testing.assert_array_equal(columns["id"], np.arange(1000))


@pytest.mark.parametrize("reason, arguments", [
    ("column id has 999 values, but there are more inputs", (first_four, INPUTS, {"id": np.arange(999)})),
    ("column id has 1001 values, but there were 1000 inputs", (first_four, INPUTS, {"id": np.arange(1001)})),
    ("has made 10 rows of 256 inputs: give a `pool`", (lambda batch: batch[:10], INPUTS)),
    ("the output has 1 dimensions", (lambda batch: batch[:, 0], INPUTS)),
    ("is no model, and no function", (7, INPUTS)),
    ("there is no id among x", (first_four, [{"x": INPUTS[0]}], ["id"])),
    ("these batches have nothing but inputs", (first_four, INPUTS, ["id"])),
    ("2 columns are named, but 1 follow", (first_four, iter([(INPUTS, INPUTS)]), ["id", "label"])),
    ("cannot take batches from", (first_four, 7))])
def test_what_encode_refuses(items, reason, arguments):
    with pytest.raises(LoadError, match=reason):
        load(items, "items", encode(*arguments))
    assert items.execute("SELECT count(*) FROM items").fetchone() == (0,), "nothing of it is loaded"
