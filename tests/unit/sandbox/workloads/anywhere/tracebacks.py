import json
import traceback
import warnings

try:
    json.loads("{")
except ValueError:
    assert "return _default_decoder.decode(s)" in traceback.format_exc()  # the line is read now
warnings.warn("seen", stacklevel=1)
