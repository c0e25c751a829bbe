package bbolt

import (
	"context"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
	"rapidbyte.io/node/statestore"
)

// Save implements statestore.Store. An update that changes nothing costs no sync.
func (s *Store) Save(ctx context.Context, p messages.PipelineID, e messages.Epoch, u statestore.Update) error {
	err := u.Check(p)
	if err == nil {
		err = s.update(ctx, func(l *ledger) error {
			if err := l.save(p, e, u, s.now()); err != nil {
				return err
			}
			return failpoint.Hit(failpoint.StateMid)
		})
	}
	if err == nil {
		err = failpoint.Hit(failpoint.StateAfter)
	}
	if err != nil {
		return statestore.SaveError(s.path, p, u, err)
	}
	return nil
}

func (l *ledger) save(p messages.PipelineID, e messages.Epoch, u statestore.Update, now time.Time) error {
	b := l.tx.Bucket(bucketPipelines).Bucket([]byte(p))
	stored, err := readEpoch(b, p)
	if err != nil {
		return err
	}
	if stored == 0 || stored != e { // I4
		return fmt.Errorf("%w: epoch %d was presented, the pipeline has %d", statestore.ErrFenced, e, stored)
	}
	c := &change{ledger: l, name: string(p), now: utc(now), loads: map[string]loadRecord{}, begun: map[string]uint64{}}
	if err := c.openBuckets(b); err != nil {
		return err
	}
	if err := c.checkpoints(u); err != nil {
		return err
	}
	if err := c.orders(u); err != nil {
		return err
	}
	if u.Run != nil {
		return c.run(*u.Run)
	}
	return nil
}

// checkpoints applies what u says about loads and their receipts.
func (c *change) checkpoints(u statestore.Update) error {
	for _, name := range u.Forget {
		if err := c.forget(name); err != nil {
			return statestore.About(name, "", err)
		}
	}
	for _, r := range u.Receipts {
		if err := c.receipt(r); err != nil {
			return statestore.About(r.Load, r.Part, err)
		}
	}
	for _, id := range u.Finished {
		if err := c.finished(id); err != nil {
			return statestore.About(id.Name, "", err)
		}
	}
	return c.sweep()
}

// change is one Save under way.
type change struct {
	*ledger
	name                  string // of the pipeline
	now                   time.Time
	receipts, marks, runs *bolt.Bucket
	history, standing     *bolt.Bucket          // standing: the orders
	loads                 map[string]loadRecord // as far as they were read
	begun                 map[string]uint64     // names that reached a new number: smaller receipts go
}

// openBuckets finds the buckets of the pipeline, and creates what is missing, also in
// a file of a program that did not know all of them. A bucket alone is no change: it is
// committed with the first value.
func (c *change) openBuckets(b *bolt.Bucket) (err error) {
	for _, k := range []struct {
		kind string
		b    **bolt.Bucket
	}{{kindReceipts, &c.receipts}, {kindLoads, &c.marks}, {kindRuns, &c.runs}, {kindHistory, &c.history}, {kindOrders, &c.standing}} {
		if *k.b, err = b.CreateBucketIfNotExists([]byte(k.kind)); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) address(kind, key string) address { return address{c.name, kind, key} }

// load returns how far a load name has come.
func (c *change) load(name string) (loadRecord, error) {
	if l, ok := c.loads[name]; ok {
		return l, nil
	}
	value := c.marks.Get([]byte(name))
	if value == nil {
		return loadRecord{}, nil
	}
	l, err := decode[loadRecord](c.address(kindLoads, name), value)
	if err == nil {
		c.loads[name] = l
	}
	return l, err
}

func (c *change) setLoad(name string, l loadRecord) error {
	c.loads[name] = l
	return c.put(c.marks, c.address(kindLoads, name), l)
}

func (c *change) forget(name string) error {
	delete(c.loads, name)
	if err := c.remove(c.marks, c.address(kindLoads, name)); err != nil {
		return err
	}
	if err := c.removeReceipts(func(r messages.Receipt) bool { return r.Load == name }); err != nil {
		return err
	}
	return c.removeKept(func(id messages.LoadID) bool { return id.Name == name })
}

// receipt stores r unless it is behind what is stored (I1: never lower a version).
func (c *change) receipt(r messages.Receipt) error {
	load := r.LoadID()
	l, err := c.load(load.Name)
	if err != nil || r.Version.Load < l.reached() {
		return err
	}
	a := c.address(kindReceipts, string(r.Part))
	if value := c.receipts.Get([]byte(a.key)); value != nil {
		stored, err := decodeReceipt(a, value)
		if err != nil || r.Version.Compare(stored.Version) <= 0 {
			return err
		}
	}
	r = mapReceipt(r, escape)
	if err := c.put(c.receipts, a, r); err != nil {
		return err
	}
	if err := c.keep(a.key, load, r); err != nil {
		return err
	}
	if load.Number <= l.Current {
		return nil
	}
	l.Current = load.Number
	c.begun[load.Name] = l.Current
	return c.setLoad(load.Name, l)
}

func (c *change) finished(id messages.LoadID) error {
	l, err := c.load(id.Name)
	if err != nil || id.Number <= l.Finished {
		return err
	}
	l.Finished = id.Number
	return c.setLoad(id.Name, l)
}

// sweep removes the receipts of loads that newer ones have replaced, their history, and
// orders for them. It reads all of them, but only when a load has begun.
func (c *change) sweep() error {
	if len(c.begun) == 0 {
		return nil
	}
	replaced := func(id messages.LoadID) bool {
		n, ok := c.begun[id.Name]
		return ok && id.Number < n
	}
	if err := c.removeReceipts(func(r messages.Receipt) bool { return replaced(r.LoadID()) }); err != nil {
		return err
	}
	if err := c.removeKept(replaced); err != nil {
		return err
	}
	return c.revoke(func(o statestore.Order) bool { return replaced(o.Load) })
}

func (c *change) removeReceipts(which func(messages.Receipt) bool) error {
	var keys []string // a bucket must not change while it is walked
	err := c.receipts.ForEach(func(key, value []byte) error {
		r, err := decodeReceipt(c.address(kindReceipts, string(key)), value)
		if err == nil && which(r) {
			keys = append(keys, string(key))
		}
		return err
	})
	for _, key := range keys {
		if err == nil {
			err = c.remove(c.receipts, c.address(kindReceipts, key))
		}
	}
	return err
}

// run stores r and drops the oldest runs.
func (c *change) run(r statestore.Run) error {
	r.Started, r.Ended = utc(r.Started), utc(r.Ended)
	a := c.address(kindRuns, r.ID)
	value := c.runs.Get([]byte(r.ID))
	if value != nil {
		stored, err := decodeRun(a, value)
		if err != nil || !r.Replaces(stored) {
			return err
		}
	}
	if err := c.put(c.runs, a, mapRun(r, escape)); err != nil {
		return err
	}
	if value != nil {
		return nil // not one more
	}
	runs, err := loadRuns(c.tx.Bucket(bucketPipelines).Bucket([]byte(c.name)), messages.PipelineID(c.name))
	if err != nil {
		return err
	}
	for _, old := range runs[min(len(runs), statestore.RunsKept):] {
		if err := c.remove(c.runs, c.address(kindRuns, old.ID)); err != nil {
			return err
		}
	}
	return nil
}

// utc drops what JSON would not bring back.
func utc(t time.Time) time.Time { return t.Round(0).UTC() }
