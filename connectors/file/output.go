package file

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

const (
	// writeBuffer is between an encoder and the file.
	writeBuffer = 256 << 10
	// chunkRows is how many rows are written between two looks at max_file_bytes.
	chunkRows = 4096
)

// encoder writes batches of one schema to one file.
type encoder interface {
	write(rec arrow.RecordBatch) error // borrows
	pending() int64                    // bytes it holds that are not in the file yet, about
	close() error                      // ends the file; does not close it
}

// output writes one stream of one part, as one or more temporary files.
type output struct {
	folder  *folder
	config  DestinationConfig
	stream  messages.StreamID
	target  string
	receipt messages.Receipt

	file *openFile // nil between two files
}

// openFile is the file being written.
type openFile struct {
	tmp    string
	disk   *os.File
	buf    *bufio.Writer
	sum    hash.Hash
	bytes  int64
	rows   int64
	zip    io.WriteCloser // nil without compression around the file
	enc    encoder
	schema *arrow.Schema
}

func newOutput(f *folder, c DestinationConfig, s messages.StreamID, target string, r messages.Receipt) *output {
	return &output{folder: f, config: c, stream: s, target: target, receipt: r}
}

// write appends rec, which it borrows, and returns the files that became full.
func (o *output) write(rec arrow.RecordBatch) (full []finished, err error) {
	for at := int64(0); at < rec.NumRows(); {
		if o.file != nil && !o.file.schema.Equal(rec.Schema()) {
			more, err := o.roll()
			if full = append(full, more...); err != nil {
				return full, err
			}
		}
		if o.file == nil {
			if err := o.open(rec.Schema()); err != nil {
				return full, err
			}
		}
		n := o.take(rec.NumRows() - at)
		if err := o.append(rec, at, n); err != nil {
			return full, err
		}
		if err := failpoint.Hit(failpoint.FileWrite); err != nil {
			return full, err
		}
		at += n
		if o.isFull() {
			more, err := o.roll()
			if full = append(full, more...); err != nil {
				return full, err
			}
		}
	}
	return full, nil
}

// take returns how many of left rows go into the file before the next look.
func (o *output) take(left int64) int64 {
	if o.config.MaxFileBytes > 0 {
		left = min(left, chunkRows)
	}
	if o.config.MaxRowsPerFile > 0 {
		left = min(left, o.config.MaxRowsPerFile-o.file.rows)
	}
	return left
}

func (o *output) isFull() bool {
	if o.config.MaxRowsPerFile > 0 && o.file.rows >= o.config.MaxRowsPerFile {
		return true
	}
	return o.config.MaxFileBytes > 0 && o.file.bytes+int64(o.file.buf.Buffered())+o.file.enc.pending() >= int64(o.config.MaxFileBytes)
}

func (o *output) append(rec arrow.RecordBatch, at, n int64) (err error) {
	defer recovered(&err)
	if at == 0 && n == rec.NumRows() {
		err = o.file.enc.write(rec)
	} else {
		part := rec.NewSlice(at, at+n)
		defer part.Release()
		err = o.file.enc.write(part)
	}
	if bad, ok := errors.AsType[*valueError](err); ok {
		return o.badValue(bad, at)
	}
	o.file.rows += n
	return err
}

// badValue names the row by its place in the part, which is where the source has
// it too.
func (o *output) badValue(v *valueError, at int64) error {
	rows := o.receipt.Rows.Arrived + o.file.rows + at + int64(v.row) + 1
	return &connectors.Error{
		Op: "write a value as " + o.config.Format, Kind: connectors.KindData, Commit: connectors.CommitNone, Code: messages.CodeValueRange,
		Place: messages.Place{Stream: o.stream, Row: rows, Field: v.field}, Err: v.err,
	}
}

func (o *output) open(schema *arrow.Schema) error {
	if err := o.folder.at(stepWrite); err != nil {
		return err
	}
	tmp := o.folder.own(path.Join("tmp", tmpName(o.receipt.Token.Epoch)))
	disk, err := o.folder.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	f := &openFile{tmp: tmp, disk: disk, sum: sha256.New(), schema: schema}
	f.buf = bufio.NewWriterSize(&tee{f}, writeBuffer)
	o.file = f
	return f.start(o.config)
}

func (f *openFile) start(c DestinationConfig) (err error) {
	defer recovered(&err)
	var w io.Writer = f.buf
	if c.Format == FormatCSV || c.Format == FormatJSONL {
		if f.zip, err = compressor(f.buf, c.Compression); err != nil {
			return err
		}
		if f.zip != nil {
			w = f.zip
		}
	}
	switch c.Format {
	case FormatCSV:
		f.enc, err = newCSVEncoder(w, f.schema)
	case FormatJSONL:
		f.enc, err = newJSONLEncoder(w, f.schema)
	case FormatParquet:
		f.enc, err = newParquetEncoder(w, f.schema, c.Compression)
	default:
		f.enc, err = newArrowEncoder(w, f.schema, c.Compression)
	}
	return err
}

// roll ends the current file, if there is one with rows, and makes it durable.
func (o *output) roll() ([]finished, error) {
	f := o.file
	if f == nil {
		return nil, nil
	}
	if err := f.end(); err != nil {
		return nil, err
	}
	if err := o.folder.at(stepSync); err != nil {
		return nil, err
	}
	if err := o.folder.flush(f.disk); err != nil {
		return nil, err
	}
	if err := failpoint.Hit(failpoint.FileSync); err != nil {
		return nil, err
	}
	if err := f.disk.Close(); err != nil {
		return nil, err
	}
	o.file = nil
	return []finished{{
		tmp: f.tmp, target: o.target, ext: suffix(o.config),
		file: manifest.File{
			Rows: f.rows, Bytes: f.bytes, SHA256: hex.EncodeToString(f.sum.Sum(nil)),
			Schema: manifest.SchemaHash(manifest.Columns(f.schema)), Part: o.receipt.Part,
		},
	}}, nil
}

func (f *openFile) end() (err error) {
	defer recovered(&err)
	if err := f.enc.close(); err != nil {
		return err
	}
	if f.zip != nil {
		if err := f.zip.Close(); err != nil {
			return err
		}
	}
	return f.buf.Flush()
}

// abort drops the file that is being written.
func (o *output) abort() {
	if o.file == nil {
		return
	}
	o.file.drop()
	_ = o.file.disk.Close() // its content is not wanted
	o.folder.remove(o.file.tmp)
	o.file = nil
}

// drop ends the encoder so that it frees its memory; what it writes is discarded.
func (f *openFile) drop() {
	var err error
	defer recovered(&err)
	f.buf.Reset(io.Discard)
	if f.enc != nil {
		err = f.enc.close()
	}
	if f.zip != nil {
		err = errors.Join(err, f.zip.Close())
	}
	_ = err // nothing of it is kept
}

// tee writes to the disk, the checksum and the count.
type tee struct{ f *openFile }

func (t *tee) Write(p []byte) (int, error) {
	n, err := t.f.disk.Write(p)
	t.f.bytes += int64(n)
	_, _ = t.f.sum.Write(p[:n]) // a hash never fails
	return n, err
}

// compressor returns nil for none.
func compressor(w io.Writer, compression string) (io.WriteCloser, error) {
	switch compression {
	case CompressionGzip:
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case CompressionZstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(4<<20))
	}
	return nil, nil //nolint:nilnil // no compression is no writer, not an error
}

// suffix is the extension of the files of a configuration.
func suffix(c DestinationConfig) string {
	s := "." + c.Format
	if c.Format == FormatCSV || c.Format == FormatJSONL {
		s += map[string]string{CompressionGzip: ".gz", CompressionZstd: ".zst"}[c.Compression]
	}
	return s
}

func isReserved(f arrow.Field) bool { return strings.HasPrefix(f.Name, "_rb_") && reserved[f.Name] }

var reserved = map[string]bool{
	messages.ColumnOp: true, messages.ColumnPosition: true, messages.ColumnUnchanged: true, messages.ColumnBefore: true,
}

// valueError is a value that the format cannot hold.
type valueError struct {
	row   int // of the batch, from 0
	field string
	err   error
}

func (e *valueError) Error() string {
	return fmt.Sprintf("row %d, field %s: %v", e.row, e.field, e.err)
}

// deadLetters writes rejected rows as JSON Lines, each with stream and reason.
type deadLetters struct {
	out *output
	row []byte
}

func newDeadLetters(f *folder, r messages.Receipt) *deadLetters {
	c := DestinationConfig{Format: FormatJSONL, Compression: CompressionNone}
	return &deadLetters{out: newOutput(f, c, "", f.deadDir(), r)}
}

// deadSchema is of the file: the row itself is a JSON text.
var deadSchema = arrow.NewSchema([]arrow.Field{
	{Name: "stream", Type: arrow.BinaryTypes.String},
	{Name: "part", Type: arrow.BinaryTypes.String},
	{Name: "reason", Type: arrow.BinaryTypes.String},
	{Name: "row", Type: arrow.BinaryTypes.String, Metadata: jsonMetadata},
}, nil)

// write borrows rec.
func (d *deadLetters) write(s messages.StreamID, reason string, rec arrow.RecordBatch) error {
	rows, err := newJSONRows(rec.Schema())
	if err != nil {
		return err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, deadSchema)
	defer b.Release()
	cols := rows.bind(rec)
	for i := range int(rec.NumRows()) {
		if d.row, err = rows.append(d.row[:0], cols, i); err != nil {
			return err
		}
		for c, text := range []string{string(s), string(d.out.receipt.Part), reason, string(d.row)} {
			b.Field(c).(*array.StringBuilder).Append(text) //nolint:errcheck,forcetypeassert // deadSchema has strings only
		}
	}
	batch := b.NewRecordBatch()
	defer batch.Release()
	full, err := d.out.write(batch)
	if len(full) > 0 {
		panic("file: a dead letter file has no limit")
	}
	return err
}

func (d *deadLetters) finish() (finished, error) {
	full, err := d.out.roll()
	if err != nil {
		return finished{}, err
	}
	f := full[0]
	f.dead = true
	return f, nil
}

func (d *deadLetters) abort() { d.out.abort() }
