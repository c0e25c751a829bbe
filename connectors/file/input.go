package file

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"rapidbyte.io/node/messages"
)

const (
	// zstdWindowMax bounds what a zstd frame can make the reader hold.
	zstdWindowMax = 64 << 20
	// peekBytes is how much is looked at to tell the format.
	peekBytes = 4096
	// edgeBytes is how much of either end of a file goes into its fingerprint.
	edgeBytes = 64 << 10
)

var (
	magicGzip    = []byte{0x1f, 0x8b}
	magicZstd    = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicParquet = []byte("PAR1")
	magicArrow   = []byte("ARROW1\x00\x00")
	magicStream  = []byte{0xff, 0xff, 0xff, 0xff}
	byteOrder    = []byte{0xef, 0xbb, 0xbf}
)

// fingerprint tells whether a file is still the one that was planned.
type fingerprint struct {
	Size int64  `json:"size"`
	SHA  string `json:"sha"` // of both ends of the content, 32 hex digits
}

// input is an open file, as its decompressed bytes.
type input struct {
	disk        *os.File
	raw         *io.SectionReader // of disk, as long as it was when it was opened: what is added later is not read
	r           io.Reader         // decompressed, from where open left it
	format      string
	compression string
	mark        fingerprint
	unzip       func() // ends the decompressor; nil for none
}

// openInput opens a regular file and finds out what auto means for it.
func openInput(path, format, compression string) (*input, error) {
	disk, err := os.Open(path)
	if err != nil {
		return nil, sourceError("open the file", path, err)
	}
	in := &input{disk: disk}
	if err := in.start(path, format, compression); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

func (in *input) start(path, format, compression string) error {
	info, err := in.disk.Stat()
	if err != nil {
		return sourceError("look at the file", path, err)
	}
	if !info.Mode().IsRegular() {
		return refused("open the file", messages.CodeSourceMissing, messages.Place{File: path}, "", errors.New("it is not a regular file"))
	}
	if in.mark, err = fingerprintOf(in.disk, info.Size()); err != nil {
		return sourceError("read the file", path, err)
	}
	in.raw = io.NewSectionReader(in.disk, 0, info.Size())
	head := make([]byte, 8)
	n, err := in.disk.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return sourceError("read the file", path, err)
	}
	if in.compression = compression; compression == "" || compression == CompressionAuto {
		in.compression = compressionOf(head[:n])
	}
	if err := in.decompress(); err != nil {
		return damaged(path, 0, err)
	}
	if in.format = format; format == "" || format == FormatAuto {
		return in.detect(path)
	}
	return nil
}

func (in *input) decompress() error {
	switch in.compression {
	case CompressionGzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(in.raw, chunkBytes/4))
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		in.r, in.unzip = z, func() { _ = z.Close() } // nothing is written
	case CompressionZstd:
		z, err := zstd.NewReader(in.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindowMax))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		in.r, in.unzip = z, z.Close
	default:
		in.r = in.raw
	}
	return nil
}

// detect tells the format by the content, and where that says nothing by the name.
func (in *input) detect(path string) error {
	b := bufio.NewReaderSize(in.r, peekBytes)
	head, err := b.Peek(len(magicArrow))
	if err != nil && !errors.Is(err, io.EOF) {
		return damaged(path, 0, err)
	}
	if in.unzip == nil {
		if _, err := in.raw.Seek(0, io.SeekStart); err != nil {
			return sourceError("read the file", path, err)
		}
	} else {
		in.r = b
	}
	switch {
	case bytes.HasPrefix(head, magicParquet):
		in.format = FormatParquet
	case bytes.HasPrefix(head, magicArrow[:6]), bytes.HasPrefix(head, magicStream):
		in.format = FormatArrow
	default:
		in.format = formatOfName[extension(path)]
	}
	if in.format == "" {
		return refused("tell the format of the file", messages.CodeDocValue, messages.Place{File: path},
			"Set `format:`, or a narrower `path:` that leaves this file out.", errors.New("neither its content nor its name says what it is"))
	}
	return nil
}

// unchanged refuses a file that was written while it was read: what was read of it is
// neither the one content nor the other.
func (in *input) unchanged(path string) error {
	info, err := in.disk.Stat()
	if err != nil {
		return sourceError("look at the file", path, err)
	}
	mark, err := fingerprintOf(in.disk, info.Size())
	if err != nil {
		return sourceError("read the file", path, err)
	}
	if mark != in.mark {
		return changedSince(path, "opened")
	}
	return nil
}

// close ends the decompressor and closes the file. Idempotent.
func (in *input) close() {
	if in.unzip != nil {
		in.unzip()
		in.unzip = nil
	}
	_ = in.disk.Close() // nothing is written
}

func compressionOf(head []byte) string {
	switch {
	case bytes.HasPrefix(head, magicGzip):
		return CompressionGzip
	case bytes.HasPrefix(head, magicZstd):
		return CompressionZstd
	}
	return CompressionNone
}

// fingerprintOf hashes the size and both ends of a file; a file of up to two ends
// is hashed whole.
func fingerprintOf(f io.ReaderAt, size int64) (fingerprint, error) {
	h := sha256.New()
	head := min(size, 2*edgeBytes)
	tail := int64(0)
	if size > 2*edgeBytes {
		head, tail = edgeBytes, edgeBytes
	}
	for _, part := range []*io.SectionReader{io.NewSectionReader(f, 0, head), io.NewSectionReader(f, size-tail, tail)} {
		if _, err := io.Copy(h, part); err != nil {
			return fingerprint{}, err
		}
	}
	return fingerprint{Size: size, SHA: hex.EncodeToString(h.Sum(nil)[:16])}, nil
}
