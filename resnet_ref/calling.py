"""How a function that describes a network is also called with arrays: Shapes first, so that every error of
architecture, shape or weights comes before any arithmetic; then Eager."""

import functools
import inspect
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from numpy.typing import DTypeLike

from resnet_ref import kernels
from resnet_ref.arg_scope import ArgScope
from resnet_ref.eager import Eager
from resnet_ref.errors import ShapeError
from resnet_ref.handle import Handle
from resnet_ref.inputs import as_images
from resnet_ref.kernels.arrays import Array
from resnet_ref.shapes import Shapes, Spec
from resnet_ref.variables import check_variables

_ALSO = """Given an array instead of a handle, these are taken too, by name. weights: slim's variable name -> array.
device: "cpu", "definition", "gpu" or "auto". dtype: "float32", or "float64" on the definition. arg_scope: what
resnet_arg_scope() returns; None: its defaults. batch_norm_updates: a dict that receives the new moving averages."""


def describes(*from_arg_scope: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for a function whose first argument is a handle: it may then be called with an array instead.

    Given a handle the function only describes. Given an array it computes, and takes the keyword-only arguments that
    `_ALSO` adds to its documentation. Parameters named in `from_arg_scope` take the arg scope's value where the caller
    gives none, as slim's add_arg_scope does.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        first = next(iter(signature.parameters))

        def call(
            *args: Any,
            weights: Mapping[str, Array] | None = None,
            device: str = "cpu",
            dtype: DTypeLike = "float32",
            arg_scope: ArgScope | None = None,
            batch_norm_updates: MutableMapping[str, Array] | None = None,
            **kwargs: Any,
        ) -> Any:
            bound = signature.bind(*args, **kwargs)
            inputs = bound.arguments.pop(first)

            def describe(handle: Handle, **instead: Any) -> Any:
                defaults = {name: getattr(handle.arg_scope, name) for name in from_arg_scope}
                return function(handle, **{**defaults, **bound.arguments, **instead})

            collection = bound.arguments.get("outputs_collections")
            # The check with shapes alone must leave no shapes in the caller's dict.
            unseen: dict[str, Any] = {"outputs_collections": {}} if isinstance(collection, MutableMapping) else {}

            if arg_scope is not None and not isinstance(arg_scope, ArgScope):
                raise ShapeError(f"arg_scope must be what resnet_arg_scope() returns, got {type(arg_scope).__name__}")
            if isinstance(inputs, Handle):
                inputs = inputs if arg_scope is None else replace(inputs, arg_scope=arg_scope)
                return describe(inputs)
            check = functools.partial(describe, **unseen)
            receive = batch_norm_updates, collection if unseen else None
            return compute(check, describe, inputs, weights, device, dtype, arg_scope or ArgScope(), *receive)

        taken = inspect.signature(call).parameters.values()
        extra = [p.replace(annotation=p.empty) for p in taken if p.kind is p.KEYWORD_ONLY]
        functools.update_wrapper(call, function)
        own = sorted([*signature.parameters.values(), *extra], key=lambda p: p.kind)  # **kwargs comes last
        call.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\n{_ALSO}"
        return call

    return decorate


def compute(
    check: Callable[[Handle], Any],
    describe: Callable[[Handle], Any],
    inputs: Any,
    weights: Mapping[str, Array] | None,
    device: str,
    dtype: DTypeLike,
    arg_scope: ArgScope,
    updates: MutableMapping[str, Array] | None,
    collection: MutableMapping[str, Array] | None,
) -> Any:
    """Describe with shapes alone (`check`), then with an array [N, H, W, C]; unwrap what that returns.

    updates, collection: what the caller gave to receive arrays.
    """
    if updates is not None and not isinstance(updates, MutableMapping):
        raise ShapeError(f"batch_norm_updates must be a dict that receives the updates, got {type(updates).__name__}")
    tier = kernels.on(device)
    images = as_images(inputs, tier, tier.dtype(dtype))
    shapes = Shapes()
    check(Handle(shapes, Spec(images.shape), arg_scope=arg_scope))
    checked = check_variables(weights, shapes.variables)
    given = tier.arrays.take(images, images.dtype)
    result = describe(Handle(Eager(tier, checked, images.dtype, updates), given, arg_scope=arg_scope))
    net, end_points = result if isinstance(result, tuple) else (result, None)
    if given is images:
        return net.value if end_points is None else (net.value, end_points)
    # Arrays come back where they came from.
    for received in (end_points, collection, updates):
        if received is not None:
            received.update({name: tier.arrays.give(a) for name, a in received.items() if tier.arrays.owns(a)})
    value = tier.arrays.give(net.value)
    return value if end_points is None else (value, end_points)
