"""Models' features, batch by batch, as `load` takes them. Neither PyTorch nor Keras is imported before a model of theirs is here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import arrays
from .arrays import Array
from .errors import LoadError

Columns = Mapping[str, Any] | Sequence[str]
Features = Callable[[Any], Any]  # of a batch


def encode(model: Any, dataset: Any, columns: Columns | None = None, *, layer: str | None = None, source: str | None = None,
           batch_size: int = 256, device: Any = None, half: bool = False,
           pool: Callable[[Any], Any] | None = None) -> Iterator[tuple[Array, dict[str, Any]]]:
    """What a model makes of a data set: batches of vectors, with the values of other columns, for `load`.

    `model`: a `torch.nn.Module`, a `keras.Model`, or any function of a batch. `layer`: the name of a layer whose output is wanted instead
    of the model's. `pool`: makes one row for each input out of that output, where it is not an array (the state of a recurrent layer, a
    named tuple), or where flattening it is not what you want.

    `dataset`: an array or tensor, a Dataset of PyTorch or Hugging Face, a list or whatever else has a length and items; or an iterable of
    batches: a generator, a DataLoader, a tf.data.Dataset. Items are inputs, or tuples with the input first, or mappings with the input as `source`;
    without `source` a mapping is the model's named arguments.

    `columns`: values by name, for all rows; or names: of a mapping's items, or for what follows the input in tuples.

    `device`: where PyTorch shall compute (the model is moved there); otherwise where the model is. `half`: PyTorch computes in half
    precision where it can, and vectors are float16, for `halfvec`. A module is in evaluation mode meanwhile, and gradients are off.
    """
    if batch_size < 1:
        raise ValueError("batch_size has to be 1 or more")
    return _encoded(model, dataset, columns, layer, source, batch_size, device, half, pool)  # errors above are not put off to the first batch


def _encoded(model: Any, dataset: Any, columns: Columns | None, layer: str | None, source: str | None, batch_size: int, device: Any,
             half: bool, pool: Callable[[Any], Any] | None) -> Iterator[tuple[Array, dict[str, Any]]]:
    given = columns if isinstance(columns, Mapping) else {}
    names = () if isinstance(columns, Mapping) else tuple(columns or ())
    first = 0
    with _features(model, layer, device, half, pool) as features:
        for batch in _batches(dataset, batch_size, model):
            inputs, values = _taken(batch, source, names)
            vectors = _flat(features(inputs), first)
            count = _length(inputs)
            if count is not None and len(vectors) != count:
                raise LoadError(f"the model has made {len(vectors)} rows of {count} inputs: give a `pool` that makes one of each", first)
            for name, column in values.items():
                if len(column) != len(vectors):
                    raise LoadError(f"column {name} has {len(column)} values for {len(vectors)} vectors", first)
            after = first + len(vectors)
            for name, column in given.items():
                if len(column) < after:
                    raise LoadError(f"column {name} has {len(column)} values, but there are more inputs", len(column))
            values |= {name: arrays.part(column, first, after) for name, column in given.items()}
            yield vectors.astype(np.float16) if half else vectors, values
            first = after
    for name, column in given.items():
        if len(column) != first:
            raise LoadError(f"column {name} has {len(column)} values, but there were {first} inputs")


# Data sets


def _is_torch(model: Any) -> bool:
    return hasattr(model, "register_forward_hook") and hasattr(model, "named_modules")


def _is_keras(model: Any) -> bool:
    return hasattr(model, "get_layer") and hasattr(model, "predict_on_batch")


def _batches(dataset: Any, size: int, model: Any) -> Iterable[Any]:
    if not arrays.is_array(dataset):
        if isinstance(dataset, Iterable):
            return dataset
        raise LoadError(f"cannot take batches from {type(dataset).__module__}.{type(dataset).__qualname__}")
    if hasattr(dataset, "shape") or hasattr(dataset, "column_names"):  # slices of these are batches
        return (arrays.part(dataset, at, min(at + size, len(dataset))) for at in range(0, len(dataset), size))
    if _is_torch(model):
        from torch.utils.data import DataLoader

        loader: Iterable[Any] = DataLoader(dataset, size, shuffle=False)
        return loader
    return (_collated([dataset[i] for i in range(at, min(at + size, len(dataset)))]) for at in range(0, len(dataset), size))


def _collated(items: list[Any]) -> Any:
    """Items one upon another."""
    if isinstance(items[0], Mapping):
        return {name: np.stack([np.asarray(item[name]) for item in items]) for name in items[0]}
    if isinstance(items[0], tuple):
        return tuple(np.stack([np.asarray(item[i]) for item in items]) for i in range(len(items[0])))
    return np.stack([np.asarray(item) for item in items])


def _taken(batch: Any, source: str | None, names: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The input of a batch, and the columns that are named."""
    if isinstance(batch, Mapping):
        for name in (*names, *([] if source is None else [source])):
            if name not in batch:
                raise LoadError(f"there is no {name} among {', '.join(map(str, batch))}")
        values = {name: _plain(batch[name]) for name in names}
        if source is not None:
            return batch[source], values
        return {name: value for name, value in batch.items() if name not in names}, values
    if source is not None:
        raise LoadError("`source` names the input of mappings, which these batches are not")
    if isinstance(batch, (tuple, list)) and batch and _length(batch[0]) is not None:
        if len(names) > len(batch) - 1:
            raise LoadError(f"{len(names)} columns are named, but {len(batch) - 1} follow the input")
        return batch[0], {name: _plain(value) for name, value in zip(names, batch[1:], strict=False)}
    if names:
        raise LoadError("these batches have nothing but inputs: give columns as a mapping of names to values")
    return batch, {}


def _plain(values: Any) -> Any:
    """A column as `load` takes it: tensors as arrays."""
    if isinstance(values, (list, tuple)):
        return list(values)
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    values = np.asarray(values)
    return [item.decode() for item in values.tolist()] if values.dtype.kind in "SO" and all(isinstance(i, bytes) for i in values.tolist()) else values


def _length(inputs: Any) -> int | None:
    if isinstance(inputs, Mapping):
        return next((_length(value) for value in inputs.values()), None)
    shape = getattr(inputs, "shape", None)
    if shape is not None and len(shape):
        return int(shape[0])
    return len(inputs) if isinstance(inputs, (list, tuple)) else None


# Models


def _flat(output: Any, first: int) -> Array:
    """One row for each input."""
    if isinstance(output, (tuple, list, Mapping)) or not hasattr(output, "shape"):
        raise LoadError(f"the output is a {type(output).__name__}, not an array: give a `pool` that makes one of it", first)
    if hasattr(output, "detach"):
        output = output.detach().cpu()
        if str(output.dtype) == "torch.bfloat16":
            output = output.float()
        output = output.numpy()
    array = np.asarray(output)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.ndim < 2:
        raise LoadError(f"the output has {array.ndim} dimensions: a row for each input is wanted", first)
    return array.reshape(len(array), -1)


def _features(model: Any, layer: str | None, device: Any, half: bool,
              pool: Callable[[Any], Any] | None) -> contextlib.AbstractContextManager[Features]:
    if _is_torch(model):
        return _of_torch(model, layer, device, half, pool)
    if device is not None:
        raise LoadError("`device` is for modules of PyTorch")
    if _is_keras(model):
        return _of_keras(model, layer, pool)
    if layer is not None:
        raise LoadError("`layer` is for modules of PyTorch and models of Keras")
    if not callable(model):
        raise LoadError(f"{type(model).__module__}.{type(model).__qualname__} is no model, and no function of a batch")
    return contextlib.nullcontext(model if pool is None else lambda batch: pool(model(batch)))


@contextlib.contextmanager
def _of_torch(module: Any, layer: str | None, device: Any, half: bool, pool: Callable[[Any], Any] | None) -> Iterator[Features]:
    import torch

    parts = dict(module.named_modules())
    if layer is not None and layer not in parts:
        raise LoadError(f"the module has no layer {layer}; it has {', '.join(name for name in parts if name)}")
    if device is not None:
        module.to(device)
    sample = next((tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()), None)
    place = device if device is not None else sample.device if sample is not None else "cpu"
    kind = torch.device(place).type
    number = torch.bfloat16 if kind == "cpu" else torch.float16  # CPUs are quicker in bfloat16, where they can at all
    caught: list[Any] = []
    hook = None if layer is None else parts[layer].register_forward_hook(lambda _module, _inputs, output: caught.append(output))

    def sent(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: sent(item) for name, item in value.items()}
        tensor = torch.as_tensor(value if isinstance(value, torch.Tensor) else np.asarray(value))
        if sample is not None and tensor.is_floating_point():
            return tensor.to(place, sample.dtype)
        return tensor.to(place)

    def features(batch: Any) -> Any:
        inputs = sent(batch)
        with torch.no_grad(), torch.autocast(kind, number, enabled=half):
            output = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
            if layer is not None:
                if not caught:
                    raise LoadError(f"the module has not used its layer {layer}")
                output = caught[-1]
                caught.clear()
            return output if pool is None else pool(output)

    # Each part as it was: one may be in another mode than the whole.
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield features
    finally:
        if hook is not None:
            hook.remove()
        for part, training in modes.items():
            part.training = training


@contextlib.contextmanager
def _of_keras(model: Any, layer: str | None, pool: Callable[[Any], Any] | None) -> Iterator[Features]:
    part = model
    if layer is not None:
        names = [one.name for one in model.layers]
        if layer not in names:
            raise LoadError(f"the model has no layer {layer}; it has {', '.join(names)}")
        import keras

        try:
            part = keras.Model(model.inputs[0] if len(model.inputs) == 1 else model.inputs, model.get_layer(layer).output)
        except (AttributeError, ValueError) as error:
            raise LoadError(f"the output of the layer {layer} cannot be had ({error}): the model is not a functional or sequential one "
                            "that has been built") from error

    def features(batch: Any) -> Any:
        inputs = {name: np.asarray(value) for name, value in batch.items()} if isinstance(batch, Mapping) else np.asarray(batch)
        output = part(inputs, training=False)
        return output if pool is None else pool(output)

    yield features
