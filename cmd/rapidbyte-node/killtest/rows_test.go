package killtest

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/conntest"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/messages"
)

// row is a row of every stream, at the source and at the destination.
type row struct {
	ID    int64   `json:"id"`
	Name  string  `json:"name"`
	Qty   int64   `json:"qty"`
	Price float64 `json:"price"`
	Flag  *bool   `json:"flag"`
}

var columns = []string{"id", "name", "qty", "price", "flag"}

// cells are the texts of the row in the order of columns; NULL is empty.
func (r row) cells() []string {
	flag := ""
	if r.Flag != nil {
		flag = strconv.FormatBool(*r.Flag)
	}
	return []string{
		strconv.FormatInt(r.ID, 10), r.Name, strconv.FormatInt(r.Qty, 10), strconv.FormatFloat(r.Price, 'g', -1, 64), flag,
	}
}

// text is the whole row: two rows are equal when their texts are.
func (r row) text() string {
	c := r.cells()
	c[1] = strconv.Quote(c[1])
	return strings.Join(c, "|")
}

// parseCells is the inverse of cells.
func parseCells(c []string) (r row, err error) {
	if len(c) != len(columns) {
		return r, fmt.Errorf("%d cells", len(c))
	}
	var errs [4]error
	r.Name = c[1]
	r.ID, errs[0] = strconv.ParseInt(c[0], 10, 64)
	r.Qty, errs[1] = strconv.ParseInt(c[2], 10, 64)
	r.Price, errs[2] = strconv.ParseFloat(c[3], 64)
	if c[4] != "" {
		var flag bool
		flag, errs[3] = strconv.ParseBool(c[4])
		r.Flag = &flag
	}
	return r, errors.Join(errs[:]...)
}

// names are texts that are easy to get wrong.
var names = []string{"plain", "a,b", `say "x"`, "two\nlines", " spaces ", "größe 表 😀", "tab\there", "NULL", "0012", `back\slash`, "'"}

// someRow draws a row.
func someRow(random *rand.Rand, id int64) row {
	r := row{
		ID: id, Name: fmt.Sprintf("%s %d", names[random.IntN(len(names))], random.IntN(1000)),
		Qty: random.Int64N(1<<40) - 1<<39, Price: float64(random.IntN(1<<20)) / 8,
	}
	if n := random.IntN(5); n > 0 {
		flag := n > 2
		r.Flag = &flag
	}
	return r
}

// writeRows writes a source file; the format is the end of its name.
func writeRows(path string, rows []row) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if strings.HasSuffix(path, ".parquet") {
		return writeParquet(f, rows)
	}
	out := bufio.NewWriter(f)
	var to io.Writer = out
	if strings.HasSuffix(path, ".gz") {
		z := gzip.NewWriter(out)
		defer func() { err = errors.Join(err, z.Close(), out.Flush()) }()
		to = z
	} else {
		defer func() { err = errors.Join(err, out.Flush()) }()
	}
	if strings.Contains(path, ".jsonl") {
		enc := json.NewEncoder(to)
		for _, r := range rows {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	w := csv.NewWriter(to)
	if err := w.Write(columns); err != nil {
		return err
	}
	for _, r := range rows {
		if err := w.Write(r.cells()); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

var arrowSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "name", Type: arrow.BinaryTypes.String},
	{Name: "qty", Type: arrow.PrimitiveTypes.Int64},
	{Name: "price", Type: arrow.PrimitiveTypes.Float64},
	{Name: "flag", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
}, nil)

// rowGroup is how many rows a row group of a source file has.
const rowGroup = 500

func writeParquet(f io.Writer, rows []row) error {
	w, err := pqarrow.NewFileWriter(arrowSchema, struct{ io.Writer }{f}, parquet.NewWriterProperties(), pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrowSchema)
	defer b.Release()
	for len(rows) > 0 {
		n := min(rowGroup, len(rows))
		for _, r := range rows[:n] {
			b.Field(0).(*array.Int64Builder).Append(r.ID)
			b.Field(1).(*array.StringBuilder).Append(r.Name)
			b.Field(2).(*array.Int64Builder).Append(r.Qty)
			b.Field(3).(*array.Float64Builder).Append(r.Price)
			flag := b.Field(4).(*array.BooleanBuilder)
			if r.Flag == nil {
				flag.AppendNull()
			} else {
				flag.Append(*r.Flag)
			}
		}
		rows = rows[n:]
		rec := b.NewRecordBatch()
		err := w.Write(rec)
		rec.Release()
		if err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

// recordRows returns the rows of a record, whatever the order of its columns.
func recordRows(rec arrow.RecordBatch) ([]row, error) {
	at := func(name string) arrow.Array {
		if i := rec.Schema().FieldIndices(name); len(i) == 1 {
			return rec.Column(i[0])
		}
		return nil
	}
	id, ok1 := at("id").(*array.Int64)
	name, ok2 := at("name").(*array.String)
	qty, ok3 := at("qty").(*array.Int64)
	price, ok4 := at("price").(*array.Float64)
	flag, ok5 := at("flag").(*array.Boolean)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || int(rec.NumCols()) != len(columns) {
		return nil, fmt.Errorf("columns %s", rec.Schema())
	}
	if id.NullN()+name.NullN()+qty.NullN()+price.NullN() > 0 {
		return nil, errors.New("a value is missing")
	}
	out := make([]row, rec.NumRows())
	for i := range out {
		out[i] = row{ID: id.Value(i), Name: strings.Clone(name.Value(i)), Qty: qty.Value(i), Price: price.Value(i)}
		if !flag.IsNull(i) {
			v := flag.Value(i)
			out[i].Flag = &v
		}
	}
	return out, nil
}

// generatorColumns is the document's text and the same configuration as a value.
const generatorColumns = `[{name: id, kind: id}, {name: name, kind: text}, {name: qty, kind: int}, {name: price, kind: float}, {name: flag, kind: bool, nulls: 0.2}]`

// generated returns rows [0, rows) of a stream of the generator.
func generated(ctx context.Context, stream string, seed uint64, rows int) (out []row, err error) {
	source, err := generator.NewSource(generator.SourceConfig{Rows: int64(rows), Seed: seed, Columns: []generator.ColumnConfig{
		{Name: "id", Kind: generator.KindID},
		{Name: "name", Kind: generator.KindText},
		{Name: "qty", Kind: generator.KindInt},
		{Name: "price", Kind: generator.KindFloat},
		{Name: "flag", Kind: generator.KindBool, Nulls: 0.2},
	}})
	if err != nil {
		return nil, err
	}
	scan, err := source.Scan(ctx, connectors.ScanRequest{
		Pipeline: pipeline, Epoch: 1, Splits: 1, Streams: []connectors.StreamSpec{{Stream: messages.StreamID(stream), Mode: connectors.ModeAppend}},
	})
	if err != nil {
		return nil, err
	}
	part := scan.Plan().Loads[0].Parts[0]
	r, err := source.Open(ctx, connectors.ReadRequest{Part: part, Mem: memory.DefaultAllocator})
	if err != nil {
		return nil, err
	}
	e := conntest.Emitter{Part: part.ID, Sink: func(_ context.Context, it messages.Item) error {
		b, ok := it.(messages.Batch)
		if !ok {
			return nil
		}
		defer b.Rows.Release()
		more, err := recordRows(b.Rows.(messages.ArrowRows).Record)
		out = append(out, more...)
		return err
	}}
	err = r.Read(ctx, &e)
	if err = errors.Join(err, e.Finished(), r.Close(ctx), scan.Close(ctx)); err != nil {
		return nil, err
	}
	if len(out) != rows || out[0].ID != 1 || out[rows-1].ID != int64(rows) {
		return nil, fmt.Errorf("the generator made %d rows of %d", len(out), rows)
	}
	return out, nil
}
