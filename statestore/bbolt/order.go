package bbolt

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// orderRecord is an order as it is stored.
type orderRecord struct {
	Load  messages.LoadID   `json:"load"`
	Part  messages.PartID   `json:"part,omitempty"`
	From  messages.Version  `json:"from,omitzero"`
	To    messages.Position `json:"to,omitzero"`
	Given time.Time         `json:"given"`
}

func mapOrder(o orderRecord, f func(string) string) orderRecord {
	o.Load.Name, o.Part, o.To = f(o.Load.Name), messages.PartID(f(string(o.Part))), mapPosition(o.To, f)
	return o
}

// orderKey is the key of an order: one per load name and part.
func orderKey(o statestore.Order) string {
	return string(appendName(appendName(nil, o.Load.Name), string(o.Part)))
}

func decodeOrder(a address, value []byte) (statestore.Order, error) {
	r, err := decode[orderRecord](a, value)
	if err != nil {
		return statestore.Order{}, err
	}
	var d decoder
	o := statestore.Order(mapOrder(r, d.text))
	if orderKey(o) != a.key {
		return o, fmt.Errorf("%w: the order for %q is stored as another", statestore.ErrDamaged, o.Load.Name)
	}
	return o, d.err()
}

// loadOrders returns the orders that are not void, sorted. receipts are sorted by part.
func loadOrders(b *bolt.Bucket, p messages.PipelineID, reached map[string]uint64, receipts []messages.Receipt) ([]statestore.Order, error) {
	var orders []statestore.Order
	err := each(b, p, kindOrders, decodeOrder, func(_ string, o statestore.Order) {
		var stored messages.Version
		if i, ok := slices.BinarySearchFunc(receipts, o.Part, comparePart); ok {
			stored = receipts[i].Version
		}
		if !o.Void(reached[o.Load.Name], stored) {
			orders = append(orders, o)
		}
	})
	slices.SortFunc(orders, statestore.Order.Compare)
	return orders, err
}

func comparePart(r messages.Receipt, part messages.PartID) int {
	switch {
	case r.Part < part:
		return -1
	case r.Part > part:
		return 1
	}
	return 0
}

// orders takes back and gives orders.
func (c *change) orders(u statestore.Update) error {
	gone := slices.Concat(u.Forget, u.Revoke)
	if len(gone) > 0 {
		if err := c.revoke(func(o statestore.Order) bool { return slices.Contains(gone, o.Load.Name) }); err != nil {
			return err
		}
	}
	for _, o := range u.Orders {
		o.Given = utc(o.Given)
		err := c.put(c.standing, c.address(kindOrders, orderKey(o)), mapOrder(orderRecord(o), escape))
		if err != nil {
			return statestore.About(o.Load.Name, o.Part, err)
		}
	}
	return nil
}

// revoke removes some orders.
func (c *change) revoke(which func(statestore.Order) bool) error {
	var keys []string // a bucket must not change while it is walked
	err := c.standing.ForEach(func(key, value []byte) error {
		o, err := decodeOrder(c.address(kindOrders, string(key)), value)
		if err == nil && which(o) {
			keys = append(keys, string(key))
		}
		return err
	})
	for _, key := range keys {
		if err == nil {
			err = c.remove(c.standing, c.address(kindOrders, key))
		}
	}
	return err
}
