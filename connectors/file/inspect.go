package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/messages"
)

const (
	// inferBytes is how much text of a stream is read whole to infer its types.
	inferBytes = 64 << 20
	// sampleBytes is how much is read of each file behind that.
	sampleBytes = 256 << 10
	// sampleRowBytes bounds a row while types are inferred.
	sampleRowBytes = 64 << 20
	// columnsMax bounds the columns of a stream.
	columnsMax = 4096
)

// inspected is what is known of a file before it is read.
type inspected struct {
	match
	format      string
	compression string
	mark        fingerprint
	rows        int64 // 0 unknown
	names       []string
	guesses     []guess       // of a text file, by column
	schema      *arrow.Schema // of a file that brings its types
	dialect     *dialect
}

// inspector looks at the files of one stream; the budget is shared between them.
type inspector struct {
	source *Source
	budget int64
}

func (s *Source) inspector() *inspector { return &inspector{source: s, budget: inferBytes} }

// look reads the columns of a file, and of a text file as many rows as the budget
// allows.
func (i *inspector) look(ctx context.Context, m match) (out inspected, err error) {
	if err := ctx.Err(); err != nil {
		return out, err
	}
	in, err := openInput(m.path, i.source.config.Format, i.source.config.Compression)
	if err != nil {
		return out, err
	}
	defer in.close()
	out = inspected{match: m, format: in.format, compression: in.compression, mark: in.mark}
	switch in.format {
	case FormatParquet:
		out.schema, out.rows, err = parquetSchema(m.path, in)
	case FormatArrow:
		out.schema, out.rows, err = arrowSchema(m.path, in)
	case FormatCSV:
		err = i.lookCSV(&out, in)
	default:
		err = i.lookJSON(&out, in)
	}
	if err == nil && out.schema != nil {
		for _, f := range out.schema.Fields() {
			out.names = append(out.names, f.Name)
		}
		if len(i.source.config.Columns) > 0 {
			return out, refused("apply the declared columns", messages.CodeDocConflict, messages.Place{File: m.path}, "",
				fmt.Errorf("types cannot be declared for %s, which brings its own", in.format))
		}
		err = checkNames(m.path, out.names)
	}
	if err == nil && len(out.names) > columnsMax {
		err = schemaError("read the columns", messages.CodeSchemaName, messages.Place{File: m.path}, fmt.Errorf("%d columns are more than %d", len(out.names), columnsMax))
	}
	return out, err
}

// sample bounds how much of a file is read: whole files as long as the budget
// lasts, then the head of each. cut reports that the bound was met.
type sample struct {
	r    io.Reader
	left int64
	cut  bool
}

func (s *sample) Read(p []byte) (int, error) {
	if s.left <= 0 {
		s.cut = true
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}

func (i *inspector) sample(in *input) *sample {
	return &sample{r: in.r, left: max(i.budget, sampleBytes)}
}

func (i *inspector) spend(s *sample) {
	i.budget -= max(i.budget, sampleBytes) - s.left
}

func (i *inspector) lookCSV(out *inspected, in *input) error {
	c := i.source.config.CSV
	out.dialect = &dialect{Delimiter: c.delimiter(out.path), Quote: c.quote(), Header: c.header(), Nulls: c.NullValues}
	part := i.sample(in)
	defer i.spend(part)
	r := &textReader{split: split{Path: out.path, CSV: out.dialect}, in: in, chunk: newChunk(part, sampleRowBytes)}
	r.limits.RowBytes = sampleRowBytes
	if err := r.begin(); err != nil {
		return err
	}
	names, err := readHeader(out.path, *out.dialect, r.chunk, r.fill)
	if err != nil || len(names) == 0 {
		return err
	}
	out.names, out.guesses = names, make([]guess, len(names))
	r.csv = &csvScanner{dialect: *out.dialect, fields: len(names), path: out.path, dest: make([]int, len(names))}
	for f := range names {
		r.csv.dest[f] = f
	}
	r.table.width = len(names)
	nulls := make(map[string]bool)
	for _, v := range c.NullValues {
		nulls[v] = true
	}
	return r.each(part, func() {
		out.rows++
		for f, x := range r.table.cells {
			v := r.table.raw[x.at : x.at+x.n]
			switch {
			case x.kind == cellPlain && (x.n == 0 || nulls[viewString(v)]):
			case x.n == 0: // a quoted empty field is an empty text
				out.guesses[f].add(fitsText)
			case x.kind == cellDoubled:
				out.guesses[f].add(fitsText)
			default:
				out.guesses[f].addCSV(v)
			}
		}
	}, func() { out.rows = 0 })
}

// each calls row for each row of a sample, and cut when the file goes on behind it.
func (r *textReader) each(part *sample, row, cut func()) error {
	for {
		r.table.rows = 0
		n, err := r.scan()
		if err != nil && part.cut && r.chunk.eof {
			cut() // the last row of the sample is not whole
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 && r.chunk.eof {
			if part.cut {
				cut()
			}
			return nil
		}
		if n == 0 {
			if err := r.fill(); err != nil {
				return err
			}
			continue
		}
		r.chunk.consume(n)
		if r.table.rows > 0 {
			if part.cut && r.chunk.eof && len(r.chunk.bytes()) == 0 {
				cut() // this one may end early, too
				return nil
			}
			row()
			r.rows++
		}
	}
}

func (i *inspector) lookJSON(out *inspected, in *input) error {
	part := i.sample(in)
	defer i.spend(part)
	r := &textReader{split: split{Path: out.path}, in: in, chunk: newChunk(part, sampleRowBytes)}
	r.limits.RowBytes = sampleRowBytes
	if err := r.begin(); err != nil {
		return err
	}
	byName := make(map[string]int)
	type found struct {
		col  int
		kind cellKind
		fits shape
	}
	var row []found
	r.json = newJSONScanner(out.path, nil, nil)
	r.json.see = func(key []byte, x cell, line []byte) error {
		col, ok := byName[string(key)]
		if !ok {
			col = len(out.names)
			if col > columnsMax {
				return schemaError("read the columns", messages.CodeSchemaName, messages.Place{File: out.path}, fmt.Errorf("there are more than %d keys", columnsMax))
			}
			byName[string(key)] = col
			out.names, out.guesses = append(out.names, string(key)), append(out.guesses, guess{})
		}
		row = append(row, found{col: col, kind: x.kind, fits: jsonShape(line[x.at:x.at+x.n], x.kind)})
		return nil
	}
	return r.each(part, func() {
		out.rows++
		for _, f := range row {
			if f.kind != cellNull {
				out.guesses[f.col].add(f.fits)
			}
		}
		row = row[:0]
	}, func() { out.rows = 0 })
}

// jsonShape classifies a JSON value: text stays text, whatever it looks like.
func jsonShape(v []byte, k cellKind) shape {
	switch k {
	case cellNumber:
		return numberShape(v)
	case cellBool:
		return fitsBool
	case cellString, cellEscaped:
		return fitsText
	default:
		return 0
	}
}

// streamSchema is the union of the columns of files, in the order in which they
// are seen first. prior holds the types of earlier loads, which stay if they fit.
func (s *Source) streamSchema(stream messages.StreamID, files []inspected, prior map[string]columnType) (*arrow.Schema, []string, error) {
	u := union{stream: stream, at: make(map[string]int)}
	for _, f := range files {
		for i, name := range f.names {
			if err := u.add(f, i, name); err != nil {
				return nil, nil, err
			}
		}
	}
	declared, err := s.declare(&u, files)
	if err != nil {
		return nil, nil, err
	}
	if len(u.names) == 0 {
		return nil, nil, schemaError("read the columns", messages.CodeSchemaEmpty, messages.Place{Stream: stream, File: files[0].path},
			errors.New("no file of the stream has a column"))
	}
	fields := make([]arrow.Field, len(u.names))
	for i, name := range u.names {
		before, known := prior[name]
		switch {
		case u.fixed[i] != nil:
			fields[i] = *u.fixed[i]
		case slices.Contains(declared, name):
			t, err := parseType(s.config.Columns[name])
			if err != nil {
				return nil, nil, err
			}
			fields[i] = t.field(name)
		case u.json[i]:
			fields[i] = u.guesses[i].jsonType(before, known).field(name)
		default:
			fields[i] = u.guesses[i].csvType(before, known).field(name)
		}
	}
	return arrow.NewSchema(fields, nil), declared, nil
}

// union gathers the columns of several files.
type union struct {
	stream  messages.StreamID
	at      map[string]int
	names   []string
	guesses []guess
	json    []bool
	fixed   []*arrow.Field // of files that bring their types
	from    []string       // file that brought it
}

func (u *union) add(f inspected, i int, name string) error {
	at, ok := u.at[name]
	if !ok {
		at = len(u.names)
		u.at[name] = at
		u.names, u.from = append(u.names, name), append(u.from, f.path)
		u.guesses, u.json, u.fixed = append(u.guesses, guess{}), append(u.json, f.format == FormatJSONL), append(u.fixed, nil)
		if f.schema != nil {
			field := f.schema.Field(i)
			field.Nullable = true
			u.fixed[at] = &field
		}
	}
	if f.schema == nil && u.fixed[at] == nil {
		u.guesses[at].merge(f.guesses[i])
		u.json[at] = u.json[at] || f.format == FormatJSONL
		return nil
	}
	if f.schema == nil || u.fixed[at] == nil || !arrow.TypeEqual(u.fixed[at].Type, f.schema.Field(i).Type) {
		return schemaError("compare the columns of the files", messages.CodeSchemaType, messages.Place{Stream: u.stream, File: f.path, Field: name},
			fmt.Errorf("its type is not the one that %s has", u.from[at]))
	}
	return nil
}

// declare adds declared keys that no row had and refuses declared columns that no
// CSV file has. It returns the declared columns of the stream, in their order.
func (s *Source) declare(u *union, files []inspected) ([]string, error) {
	anyJSON := slices.ContainsFunc(files, func(f inspected) bool { return f.format == FormatJSONL })
	var declared []string
	for _, name := range s.declaredNames() {
		if _, ok := u.at[name]; ok {
			declared = append(declared, name)
			continue
		}
		if !anyJSON {
			return nil, schemaError("apply the declared columns", messages.CodeSchemaColumn, messages.Place{Stream: u.stream, Field: name},
				fmt.Errorf("no file of the stream has a column %q", name))
		}
		u.at[name] = len(u.names)
		u.names, u.from = append(u.names, name), append(u.from, "")
		u.guesses, u.json, u.fixed = append(u.guesses, guess{}), append(u.json, true), append(u.fixed, nil)
		declared = append(declared, name)
	}
	return declared, nil
}

// project keeps the wanted columns, in the order asked for.
func project(stream messages.StreamID, schema *arrow.Schema, want []string) (*arrow.Schema, []string, error) {
	if len(want) == 0 {
		return schema, nil, nil
	}
	var fields []arrow.Field
	for _, name := range want {
		fs, ok := schema.FieldsByName(name)
		if !ok {
			return nil, nil, schemaError("choose the columns", messages.CodeSchemaColumn, messages.Place{Stream: stream, Field: name},
				fmt.Errorf("no file of the stream has a column %q", name))
		}
		fields = append(fields, fs[0])
	}
	var skipped []string
	for _, f := range schema.Fields() {
		if !slices.Contains(want, f.Name) {
			skipped = append(skipped, f.Name)
		}
	}
	return arrow.NewSchema(fields, nil), skipped, nil
}

// checkNames refuses column names that are empty or stand twice.
func checkNames(path string, names []string) error {
	seen := make(map[string]int, len(names))
	for i, name := range names {
		first, doubled := seen[name]
		switch {
		case name == "":
			return schemaError("read the column names", messages.CodeSchemaName, messages.Place{File: path}, fmt.Errorf("column %d has no name", i+1))
		case doubled:
			return schemaError("read the column names", messages.CodeSchemaName, messages.Place{File: path, Field: name},
				fmt.Errorf("columns %d and %d have the same name", first+1, i+1))
		case !validUTF8(name):
			return schemaError("read the column names", messages.CodeSchemaName, messages.Place{File: path}, fmt.Errorf("the name of column %d is not UTF-8", i+1))
		}
		seen[name] = i
	}
	return nil
}

func columnName(i int) string { return "column_" + strconv.Itoa(i+1) }

// readerAt returns what a columnar format needs: random access, which a
// compressed file does not offer.
func (in *input) readerAt(path string) (*io.SectionReader, error) {
	if in.unzip != nil {
		return nil, refused("read the file", messages.CodeNotAvailable, messages.Place{File: path}, "Decompress the file.",
			fmt.Errorf("a %s file cannot be read inside %s", in.format, in.compression))
	}
	return io.NewSectionReader(in.disk, 0, in.mark.Size), nil
}

var errNoMagic = errors.New("it does not begin with the bytes of its format")

func hasPrefix(in io.ReaderAt, magic []byte) bool {
	b := make([]byte, len(magic))
	_, err := in.ReadAt(b, 0)
	return err == nil && bytes.Equal(b, magic)
}
