package bbolt

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// errUnknown: not a file of this program. Where one was, that is damage.
var errUnknown = fmt.Errorf("%w", statestore.ErrForeign)

var (
	bucketMeta      = []byte(kindMeta)
	bucketPipelines = []byte("pipelines")
	keyIdentity     = []byte("identity")
	keyDigest       = []byte("digest")
	keyEpoch        = []byte(kindEpoch)
)

// verify proves everything in the database and learns its identity.
func (s *Store) verify(tx *bolt.Tx) (err error) {
	m, pipelines := tx.Bucket(bucketMeta), tx.Bucket(bucketPipelines)
	if m == nil || pipelines == nil || m.Get(keyIdentity) == nil {
		return fmt.Errorf("%w: it is another program's database", errUnknown)
	}
	if s.id, err = decode[identity](identityAddress, m.Get(keyIdentity)); err != nil {
		return err
	}
	if err := s.id.check(); err != nil {
		return err
	}
	for e := range tx.Check() { // to its end: a goroutine of bbolt sends
		if err == nil {
			err = damaged("%v", e)
		}
	}
	if err != nil {
		return err
	}
	want, err := readDigest(m)
	if err != nil {
		return err
	}
	var got digest
	err = pipelines.ForEach(func(name, value []byte) error {
		if value != nil {
			return damaged("key %q among the pipelines", name)
		}
		return verifyPipeline(pipelines.Bucket(name), string(name), &got)
	})
	if err == nil && got != want {
		err = damaged("it holds %d values and should hold %d, or one of them is an old one", got.Count, want.Count)
	}
	return err
}

func readDigest(m *bolt.Bucket) (digest, error) {
	return decode[digest](address{kind: kindMeta, key: string(keyDigest)}, m.Get(keyDigest))
}

// verifyPipeline decodes every value of one pipeline and adds it to sum.
func verifyPipeline(b *bolt.Bucket, pipeline string, sum *digest) error {
	return b.ForEach(func(name, value []byte) error {
		if value != nil {
			a := epochAddress(pipeline)
			sum.add(a, value)
			if string(name) != kindEpoch {
				return damaged("key %q in pipeline %s", name, pipeline)
			}
			_, err := decode[messages.Epoch](a, value)
			return err
		}
		return b.Bucket(name).ForEach(func(key, value []byte) error {
			if value == nil {
				return damaged("bucket %q in pipeline %s", key, pipeline)
			}
			a := address{pipeline, string(name), string(key)}
			sum.add(a, value)
			return verifyValue(a, value)
		})
	})
}

func verifyValue(a address, value []byte) (err error) {
	switch a.kind {
	case kindReceipts:
		_, err = decodeReceipt(a, value)
	case kindLoads:
		_, err = decode[loadRecord](a, value)
	case kindRuns:
		_, err = decodeRun(a, value)
	case kindHistory:
		_, err = decodeKept(a, value)
	case kindOrders:
		_, err = decodeOrder(a, value)
	default:
		err = damaged("values of the kind %q", a.kind)
	}
	return err
}
