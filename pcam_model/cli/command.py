"""What all commands of `pcam` share: the options -v and -q, and a plain help: no types, no braces, no broken lines."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

from pcam_model.cli.options import QuietOption, VerboseOption


def with_log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a command with the options -v and -q, whose callbacks set the log level."""

    @functools.wraps(function)
    def command(_verbose: bool = False, _quiet: bool = False, **values: Any) -> Any:
        return function(**values)

    added = {"_verbose": VerboseOption, "_quiet": QuietOption}
    signature = inspect.signature(function)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in added.items()
    ]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *parameters]
    )
    command.__annotations__ = function.__annotations__ | added
    command.__doc__ = _unwrapped(function)
    return command


def _unwrapped(function: Callable[..., Any]) -> str:
    """A function's docstring with each paragraph on one line, which the terminal wraps."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(function) or "").split("\n\n"))


class PcamCommand(TyperCommand):
    """A command whose help has no types of flags and arguments, and its arguments' names as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, --help included."""
        return _without_types(super().get_params(ctx))


class PcamGroup(TyperGroup):
    """The program `pcam`, whose help has no types of flags; the name of a command may be two words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Name, command and arguments; a name of two words, as `slides score`, goes before that of its first."""
        name = " ".join(args[:2])
        if len(args) > 1 and name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, --help included."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    """Parameters whose help says no `<bool>` beside a flag and no `<list[Path]>` or `{MODEL}` for an argument."""
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            vars(parameter)["display_type_rich"] = _no_type
            name = f"{parameter.metavar}..." if parameter.nargs != 1 else str(parameter.metavar)
            vars(parameter)["_usage_display_name"] = functools.partial(str, name)
        elif parameter.is_flag:
            parameter.metavar = ""
    return parameters


def _no_type(ctx: Any) -> None:
    """No text."""
