import concurrent.futures
import os
import queue
import threading
import time

with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: sum(range(n)), [10000] * 64)) == 64 * sum(range(10000))
condition, event, lock = threading.Condition(), threading.Event(), threading.RLock()
with condition:
    condition.wait(0.01)
threading.Timer(0.01, event.set).start()
assert event.wait(5)
semaphore, barrier, seen = threading.Semaphore(1), threading.Barrier(3), queue.Queue()
crew = [threading.Thread(target=lambda: seen.put(barrier.wait(5))) for _ in range(3)]
[t.start() for t in crew]
[t.join() for t in crew]
assert sorted(seen.get(timeout=5) for _ in crew) == [0, 1, 2]
time.sleep(0.001)
threading.get_native_id()
os.sched_yield()
