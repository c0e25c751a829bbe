package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/internal/query"
	"rapidbyte.io/node/messages"
)

// splitPages is the least size of a part in blocks, 8 MiB: a smaller one costs more in
// connections than it gains.
const splitPages = 1024

// keyRange is a range of the column that the document splits by.
type keyRange struct {
	Column  string  `json:"column"`
	Type    string  `json:"type"`                // as a cast spells it
	Schema  string  `json:"operators,omitempty"` // of its operators, empty: pg_catalog
	From    *string `json:"from,omitempty"`      // inclusive
	To      *string `json:"to,omitempty"`        // exclusive
	Nulls   bool    `json:"nulls,omitempty"`     // rows without a value belong to it
	Integer bool    `json:"integer,omitempty"`   // an index finds pieces of the range
}

func (k *keyRange) query() *query.Range {
	return &query.Range{Key: query.Key{Column: k.Column, Type: k.Type, Schema: k.Schema}, From: k.From, To: k.To, Nulls: k.Nulls}
}

// heapSize is the size of a relation, of all that belongs to it.
type heapSize struct {
	total   int64 // blocks
	largest int64 // blocks of the largest heap in it
}

// sizeSQL measures the heaps under a relation; sizes are those of the files now.
const sizeSQL = `
WITH RECURSIVE tree(root, oid) AS (
	SELECT o, o FROM unnest($1::oid[]) AS o
	UNION
	SELECT tree.root, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
SELECT tree.root, coalesce(sum(s.blocks), 0)::int8, coalesce(max(s.blocks), 0)::int8
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.relkind IN ('r', 'm'),
	LATERAL (SELECT coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8 AS blocks) s
GROUP BY tree.root`

// sizes measures the heaps of all streams that may be split.
func (p *scanPlanner) sizes(ctx context.Context) (map[uint32]heapSize, error) {
	var oids []uint32
	for _, d := range p.streams {
		if d.rel.heap && d.spec.Sync != connectors.SyncIncremental && p.request.Splits > 1 {
			oids = append(oids, d.rel.oid)
		}
	}
	out := map[uint32]heapSize{}
	if len(oids) == 0 {
		return out, nil
	}
	rows, err := p.conn.Query(ctx, sizeSQL, oids)
	if err != nil {
		return nil, err
	}
	var oid uint32
	var size heapSize
	_, err = pgx.ForEachRow(rows, []any{&oid, &size.total, &size.largest}, func() error {
		out[oid] = size
		return nil
	})
	return out, err
}

// parts cuts a stream into parts.
func (p *scanPlanner) parts(ctx context.Context, d *described, size heapSize, id messages.LoadID) ([]connectors.Part, error) {
	whole := d.split()
	whole.Files, whole.Endless = p.heaps[d.rel.oid], p.facts.version/10000 >= versionEndless
	var splits []readSplit
	n := max(1, min(int64(p.request.Splits), size.total/max(p.source.splitPages, 1)))
	switch {
	case d.spec.PartitionKey != "":
		var err error
		if splits, err = p.ranges(ctx, d, whole, n); err != nil {
			return nil, err
		}
	case d.rel.heap && p.facts.version >= versionTIDRange:
		for i := range n {
			s := whole
			s.Blocks = &blockRange{From: size.largest * i / n, To: size.largest * (i + 1) / n}
			if i == n-1 {
				s.Blocks.To = 0
			}
			splits = append(splits, s)
		}
	default:
		splits = []readSplit{whole}
	}
	return partsOf(d, splits, id)
}

func partsOf(d *described, splits []readSplit, id messages.LoadID) ([]connectors.Part, error) {
	out := make([]connectors.Part, len(splits))
	for i, s := range splits {
		raw, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		stream := d.spec.Stream
		out[i] = connectors.Part{
			ID: messages.PartID(stream), Load: id, Streams: []messages.StreamID{stream}, Split: raw, Rows: d.rel.rows / int64(len(splits)),
		}
		if len(splits) > 1 {
			out[i].ID = messages.PartID(fmt.Sprintf("%s/%d", stream, i))
		}
	}
	return out, nil
}

// ranges cuts by partition_key. The first range holds the rows without a value.
func (p *scanPlanner) ranges(ctx context.Context, d *described, whole readSplit, n int64) ([]readSplit, error) {
	k, err := p.partitionKey(ctx, d)
	if err != nil {
		return nil, err
	}
	c, _ := d.rel.column(k.Column)
	integer := k.Cursor == messages.CursorInt64
	if !d.rel.heap {
		n = int64(max(1, p.request.Splits)) // its size is not known
	}
	var cuts []string
	if n > 1 {
		if cuts, err = p.cuts(ctx, d, c, k, n); err != nil {
			return nil, err
		}
	}
	var out []readSplit
	for i := range len(cuts) + 1 {
		s := whole
		s.Range = &keyRange{
			Column: c.Name, Type: k.Type, Schema: k.Schema, Nulls: i == 0,
			Integer: integer && slices.Contains(d.rel.leading, c.Name),
		}
		if i > 0 {
			s.Range.From = &cuts[i-1]
		}
		if i < len(cuts) {
			s.Range.To = &cuts[i]
		}
		out = append(out, s)
	}
	return out, nil
}

// partitionKey returns the column by which the document splits.
func (p *scanPlanner) partitionKey(ctx context.Context, d *described) (followKey, error) {
	c, ok := d.rel.column(d.spec.PartitionKey)
	if !ok {
		e := streamError("plan the stream", connectors.KindSchema, messages.CodeSchemaColumn, d.spec.Stream,
			fmt.Errorf("the table has no column %q%s", d.spec.PartitionKey, nearest(d.spec.PartitionKey, d.rel.names(), "")))
		e.Place.Field = "partition_key"
		return followKey{}, e
	}
	return p.key(ctx, d, c, "partition_key")
}

// cuts returns at most n-1 values between the ranges, in the server's own order.
func (p *scanPlanner) cuts(ctx context.Context, d *described, c attribute, k followKey, n int64) ([]string, error) {
	bounds, err := p.histogram(ctx, d, c)
	if err == nil && len(bounds) == 0 {
		if k.Cursor == messages.CursorInt64 {
			bounds, err = p.even(ctx, d, c, n)
		} else {
			bounds, err = p.sample(ctx, d, c, n)
		}
	}
	if err != nil || len(bounds) < 3 { // both ends and something between
		return nil, err
	}
	var inner []string
	for i := int64(1); i < n; i++ {
		inner = append(inner, bounds[i*int64(len(bounds)-1)/n])
	}
	collate := ""
	if c.collation != "" {
		collate = " COLLATE " + c.collation
	}
	rows, err := p.conn.Query(ctx, "SELECT b::text FROM (SELECT DISTINCT v::"+k.Type+collate+" AS b FROM unnest($1::text[]) AS v) AS x ORDER BY x.b", inner)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// histogram returns values at even distances, as last counted by the server.
func (p *scanPlanner) histogram(ctx context.Context, d *described, c attribute) ([]string, error) {
	rows, err := p.conn.Query(ctx, `SELECT coalesce(histogram_bounds::text::text[], '{}') FROM pg_catalog.pg_stats
		WHERE schemaname = $1 AND tablename = $2 AND attname = $3 ORDER BY inherited DESC LIMIT 1`, d.rel.schema, d.rel.name, c.Name)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[[]string])
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// even returns n+1 numbers from the least to the greatest.
func (p *scanPlanner) even(ctx context.Context, d *described, c attribute, n int64) ([]string, error) {
	var least, greatest *int64
	name := query.Ident(c.Name)
	err := p.conn.QueryRow(ctx, "SELECT min("+name+")::int8, max("+name+")::int8 FROM "+query.Qualified(d.rel.schema, d.rel.name)).Scan(&least, &greatest)
	if err != nil || least == nil {
		return nil, err
	}
	step := (uint64(*greatest) - uint64(*least)) / uint64(n) //nolint:gosec // the distance fits, whatever the signs
	out := make([]string, 0, n+1)
	for i := range uint64(n) { //nolint:gosec // at least 1
		out = append(out, strconv.FormatInt(*least+int64(i*step), 10)) //nolint:gosec // below greatest
	}
	return append(out, strconv.FormatInt(*greatest, 10)), nil
}

// sampleRows is about how many rows a sample has.
const sampleRows = 20_000

// sample returns quantiles of a part of the rows, always the same part.
func (p *scanPlanner) sample(ctx context.Context, d *described, c attribute, n int64) ([]string, error) {
	if !d.rel.heap || d.rel.kind == kindPartitioned && d.rel.pages == 0 {
		return nil, nil
	}
	percent := 100.0
	if d.rel.rows > sampleRows {
		percent = 100 * sampleRows / float64(d.rel.rows)
	}
	at := make([]string, n+1)
	for i := range at {
		at[i] = strconv.FormatFloat(float64(i)/float64(n), 'g', -1, 64)
	}
	name := query.Ident(c.Name)
	sql := fmt.Sprintf("SELECT coalesce((percentile_disc(ARRAY[%s]::float8[]) WITHIN GROUP (ORDER BY %s))::text[], '{}') FROM %s TABLESAMPLE SYSTEM (%g) REPEATABLE (0)",
		strings.Join(at, ", "), name, query.Qualified(d.rel.schema, d.rel.name), percent)
	var out []*string
	if err := p.conn.QueryRow(ctx, sql).Scan(&out); err != nil {
		return nil, err
	}
	texts := make([]string, 0, len(out))
	for _, v := range out {
		if v != nil {
			texts = append(texts, *v)
		}
	}
	return texts, nil
}
