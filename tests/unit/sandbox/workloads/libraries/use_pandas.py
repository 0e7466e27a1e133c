import io

import pandas

frame = pandas.DataFrame({"n": range(1000), "s": [str(n % 7) for n in range(1000)]})
assert frame.groupby("s")["n"].sum().sum() == 499500
text = frame.to_csv(index=False)
assert pandas.read_csv(io.StringIO(text)).equals(frame.astype({"s": int}))
times = pandas.date_range("2024-03-30", periods=72, freq="h", tz="Europe/Berlin")
assert pandas.Series(range(72), index=times).resample("D").sum().sum() == 2556
assert frame.merge(frame, on="n").shape == (1000, 3)
