package file

import (
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"rapidbyte.io/node/messages"
)

// A row group is closed at either bound: it is held in memory, encoded, until
// then, and a reader may have to hold it too.
const (
	rowGroupRows  = 128 << 10
	rowGroupBytes = 32 << 20 // Arrow bytes
)

// parquetEncoder writes row groups of bounded size.
type parquetEncoder struct {
	w      *pqarrow.FileWriter
	schema *arrow.Schema
	rows   int64 // of the row group
	bytes  int64 // of the row group, as Arrow
}

func newParquetEncoder(w io.Writer, s *arrow.Schema, compression string) (*parquetEncoder, error) {
	codec := map[string]compress.Compression{
		CompressionNone: compress.Codecs.Uncompressed, CompressionGzip: compress.Codecs.Gzip,
		CompressionZstd: compress.Codecs.Zstd, CompressionSnappy: compress.Codecs.Snappy,
	}[compression]
	props := []parquet.WriterProperty{
		parquet.WithAllocator(memory.DefaultAllocator), parquet.WithVersion(parquet.V2_LATEST),
		parquet.WithCompression(codec), parquet.WithMaxRowGroupLength(rowGroupRows), parquet.WithCreatedBy("rapidbyte-node"),
		// a dictionary saves space where texts repeat; numbers only pay for it
		parquet.WithDictionaryDefault(false), parquet.WithDictionaryPageSizeLimit(256 << 10),
	}
	for _, f := range s.Fields() {
		if arrow.IsBinaryLike(f.Type.ID()) || arrow.IsLargeBinaryLike(f.Type.ID()) {
			props = append(props, parquet.WithDictionaryPath(parquet.ColumnPath{f.Name}, true))
		}
	}
	// the writer would close w, if it could
	fw, err := pqarrow.NewFileWriter(s, struct{ io.Writer }{w}, parquet.NewWriterProperties(props...),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema(), pqarrow.WithAllocator(memory.DefaultAllocator)))
	if err != nil {
		return nil, err
	}
	return &parquetEncoder{w: fw, schema: s}, nil
}

// parquetHolds reports why Parquet has no type for f.
func parquetHolds(f arrow.Field) error {
	_, err := pqarrow.ToParquet(arrow.NewSchema([]arrow.Field{f}, nil), parquet.NewWriterProperties(parquet.WithVersion(parquet.V2_LATEST)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	return err
}

func (e *parquetEncoder) write(rec arrow.RecordBatch) error {
	size := messages.ArrowRows{Record: rec}.Bytes()
	if e.rows > 0 && (e.rows+rec.NumRows() > rowGroupRows || e.bytes+size > rowGroupBytes) {
		if err := e.w.NewBufferedRowGroupChecked(); err != nil {
			return err
		}
		e.rows, e.bytes = 0, 0
	}
	if err := e.w.WriteBuffered(rec); err != nil {
		return err
	}
	e.rows += rec.NumRows()
	e.bytes += size
	return nil
}

func (e *parquetEncoder) pending() int64 { return e.w.RowGroupTotalCompressedBytes() }

func (e *parquetEncoder) close() error { return e.w.Close() }

// arrowEncoder writes the IPC file format.
type arrowEncoder struct {
	w      *ipc.FileWriter
	schema *arrow.Schema
}

func newArrowEncoder(w io.Writer, s *arrow.Schema, compression string) (*arrowEncoder, error) {
	opts := []ipc.Option{ipc.WithSchema(s), ipc.WithAllocator(memory.DefaultAllocator)}
	if compression == CompressionZstd {
		opts = append(opts, ipc.WithZstd())
	}
	fw, err := ipc.NewFileWriter(w, opts...)
	if err != nil {
		return nil, fmt.Errorf("begin an arrow file: %w", err)
	}
	return &arrowEncoder{w: fw, schema: s}, nil
}

func (e *arrowEncoder) write(rec arrow.RecordBatch) error {
	same := array.NewRecordBatch(e.schema, rec.Columns(), rec.NumRows())
	defer same.Release()
	return e.w.Write(same)
}

func (e *arrowEncoder) pending() int64 { return 0 }

func (e *arrowEncoder) close() error { return e.w.Close() }
