package postgres

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// unaltered requires that the relations are what they were when they were described: until
// they were locked anybody could alter them, and bytes would be read as of another type.
func (p *scanPlanner) unaltered(ctx context.Context) error {
	names := make([]qname, len(p.streams))
	for i, d := range p.streams {
		names[i] = d.rel.qname()
	}
	now, err := readRelations(ctx, p.conn, names)
	if err != nil {
		return err
	}
	for _, d := range p.streams {
		if r := now[d.rel.qname()]; r == nil || !reflect.DeepEqual(d.rel.shape(), r.shape()) {
			return streamError("take the snapshot", connectors.KindTransient, messages.CodeSourceChanged, d.spec.Stream,
				errors.New("it was altered at the same time"))
		}
	}
	return nil
}

// shape is what a plan relies on.
func (r *relation) shape() relation {
	out := *r
	out.pages, out.rows, out.triggers, out.rowTriggers = 0, 0, false, false
	return out
}

// filesOf spells the files of a relation and of its partitions, as they are now whatever
// the snapshot: "oid:file,oid:file". A file is another one when the table was rewritten.
func filesOf(oid string) string {
	return `(SELECT string_agg(f.oid::text || ':' || coalesce(pg_relation_filenode(f.oid), 0)::text, ',' ORDER BY f.oid)
		FROM (SELECT ` + oid + ` AS oid UNION SELECT relid::oid FROM pg_partition_tree(` + oid + `)) AS f)`
}

// files reads the files of all streams that are read whole.
func (p *scanPlanner) files(ctx context.Context) error {
	p.heaps = map[uint32]string{}
	var oids []uint32
	for _, d := range p.streams {
		if d.spec.Sync != connectors.SyncIncremental && (d.rel.kind == kindTable || d.rel.kind == kindPartitioned || d.rel.kind == kindMaterialised) {
			oids = append(oids, d.rel.oid)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	rows, err := p.conn.Query(ctx, "SELECT o, "+filesOf("o")+" FROM unnest($1::oid[]) AS o", oids)
	if err != nil {
		return err
	}
	var oid uint32
	var files string
	_, err = pgx.ForEachRow(rows, []any{&oid, &files}, func() error {
		p.heaps[oid] = files
		return nil
	})
	return err
}

// rewritten reports whether a file of was is another one in now: positions in it mean
// nothing any more. Partitions may come and go.
func rewritten(was, now string) bool {
	files := map[string]string{}
	for f := range strings.SplitSeq(now, ",") {
		oid, file, _ := strings.Cut(f, ":")
		files[oid] = file
	}
	for f := range strings.SplitSeq(was, ",") {
		oid, file, _ := strings.Cut(f, ":")
		if again, ok := files[oid]; ok && again != file {
			return true
		}
	}
	return false
}

// steady requires, before the part ends, that its relation has the files of the plan. A
// partition that was attached meanwhile shows its rows to some statements and not to
// others; one that was rewritten after the scan had lost its lock looks empty.
func (p *pass) steady(ctx context.Context) error {
	files := p.reader.split.Files
	if files == "" {
		return nil
	}
	now, err := p.value(ctx, "SELECT "+filesOf(strconv.FormatUint(uint64(p.reader.split.Relation), 10)+"::oid"))
	if err != nil || string(now) == files {
		return err
	}
	return streamError("read the table", connectors.KindScanLost, messages.CodeSourceChanged, p.reader.stream,
		errors.New("a partition was attached, or a table rewritten, while it was read"))
}
