"""What can go wrong, each with the exit status that the command line returns for it.

`EXIT` is the table of these. In Python each kind is an exception, and all are `OnnxplainError`.
"""

EXIT = {
    0: "success",
    1: "ran, but the result is not good: parity missed, an image of a folder unreadable",
    2: "wrong usage of the command line: an unknown command or option, one without its value",
    3: "the network cannot be exported, or the options do not fit it",
    4: "an argument cannot be used: an image, a target, an option's value, an output path",
    5: "what runs it cannot be used: a package, provider or precision that is missing, or a file "
    "that no runtime takes",
    130: "interrupted",
}
"""What the exit status of every command says."""


class OnnxplainError(Exception):
    """Base of every error that onnxplain raises on purpose; its message says what to do next."""

    exit_code = 1


class SourceError(OnnxplainError):
    """The network could not be found, read, traced or brought to the form the sweep needs."""

    exit_code = 3


class UntrustedError(SourceError):
    """A file whose author can run code with it, which nobody said they trust."""


class OpenSizeError(SourceError):
    """A size that is known at run time only, where a number is needed."""

    def __str__(self) -> str:
        return f"{self.args[0]}; fix it with size= of an image, sizes= of other inputs"


class NoRuleError(SourceError):
    """An operator on the way from the input to the logits has no rule for its cotangent."""


class RuleError(SourceError):
    """A registered rule returned what cannot be a cotangent of its operator's input."""


class InputError(OnnxplainError, ValueError):
    """An image, target or output path that cannot be used."""

    exit_code = 4


class BackendError(OnnxplainError):
    """A runtime that is missing, or a file that it cannot run."""

    exit_code = 5


class UnfinishedError(OnnxplainError):
    """A network that runs for longer than it is given."""

    exit_code = 5
