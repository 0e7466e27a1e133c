import sqlite3

base = sqlite3.connect(":memory:")
base.execute("create table t (n integer, s text)")
base.executemany("insert into t values (?, ?)", [(n, str(n)) for n in range(1000)])
base.commit()
assert base.execute("select sum(n) from t where s like '9%'").fetchone()[0] > 0
