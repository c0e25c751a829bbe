package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
)

// messageMax is the longest message that the server takes, with its length word.
const messageMax = 1<<30 - 1

var (
	errNUL  = errors.New("the text holds a NUL byte")
	errLong = errors.New("the message is longer than the 1 GiB that the server takes")
)

// appendText appends a message that holds one text.
func appendText(dst []byte, typ byte, text string) ([]byte, error) {
	if strings.IndexByte(text, 0) >= 0 {
		return dst, errNUL
	}
	if len(text)+headerSize > messageMax {
		return dst, errLong
	}
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(text)+1))
	return append(append(dst, text...), 0), nil
}

// appendEmpty appends a message without a body.
func appendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// insertMessages returns what goes before and after raw: Parse, Bind, Execute and
// Sync of one unnamed statement, all of its n parameters in binary.
func insertMessages(dst []byte, sql string, oids []uint32, n, raw int) (before, after []byte, err error) {
	switch {
	case strings.IndexByte(sql, 0) >= 0:
		return nil, nil, errNUL
	case n < 0 || n > 65535 || len(oids) > n:
		return nil, nil, errors.New("a statement has at most 65535 parameters")
	case len(sql)+raw+4*len(oids)+64 > messageMax:
		return nil, nil, errLong
	}
	dst = append(dst, 'P')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+1+len(sql)+1+2+4*len(oids)))
	dst = append(append(append(dst, 0), sql...), 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(oids)))
	for _, oid := range oids {
		dst = binary.BigEndian.AppendUint32(dst, oid)
	}
	dst = append(dst, 'B')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+1+1+2+2+2+raw+2))
	dst = append(dst, 0, 0, 0, 1, 0, 1) // portal, statement, one format for all: binary
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	split := len(dst)
	dst = append(dst, 0, 0) // results in text
	dst = append(dst, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
	dst = appendEmpty(dst, 'S')
	return dst[:split], dst[split:], nil
}

// checkValues verifies that raw holds exactly n values, each a length and its bytes.
func checkValues(raw []byte, n int) error {
	for range n {
		if len(raw) < 4 {
			return errors.New("there are fewer values than parameters")
		}
		size := int64(int32(binary.BigEndian.Uint32(raw)))
		raw = raw[4:]
		if size < -1 || size > int64(len(raw)) {
			return errors.New("a value is longer than what is there")
		}
		raw = raw[max(size, 0):]
	}
	if len(raw) > 0 {
		return errors.New("there are more values than parameters")
	}
	return nil
}

// decodeColumns returns the names in a RowDescription.
func decodeColumns(body []byte) ([]string, error) {
	bad := &ProtocolError{Type: 'T', Why: "it is cut off"}
	if len(body) < 2 {
		return nil, bad
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	names := make([]string, 0, min(n, 1664)) // no relation or result has more
	for range n {
		end := bytes.IndexByte(body, 0)
		if end < 0 || len(body) < end+1+18 {
			return nil, bad
		}
		names = append(names, string(body[:end]))
		body = body[end+1+18:]
	}
	if len(body) > 0 {
		return nil, &ProtocolError{Type: 'T', Why: "it is longer than its columns"}
	}
	return names, nil
}

// decodeRow returns the values of a DataRow, copied.
func decodeRow(body []byte) ([][]byte, error) {
	bad := &ProtocolError{Type: 'D', Why: "it is cut off"}
	if len(body) < 2 {
		return nil, bad
	}
	n := int(binary.BigEndian.Uint16(body))
	rest := body[2:]
	if err := checkValues(rest, n); err != nil {
		return nil, &ProtocolError{Type: 'D', Why: err.Error()}
	}
	rest = bytes.Clone(rest)
	row := make([][]byte, n)
	for i := range row {
		size := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if size >= 0 {
			row[i] = rest[:size:size]
			rest = rest[size:]
		}
	}
	return row, nil
}

// decodeTexts returns the texts of a body that is made of n of them.
func decodeTexts(typ byte, body []byte, n int) ([]string, error) {
	if len(body) == 0 || body[len(body)-1] != 0 {
		return nil, &ProtocolError{Type: typ, Why: "its text does not end"}
	}
	parts := strings.Split(string(body[:len(body)-1]), "\x00")
	if len(parts) != n {
		return nil, &ProtocolError{Type: typ, Why: "it holds another number of texts"}
	}
	return parts, nil
}

// rowsOf returns the number at the end of a command tag: "COPY 5".
func rowsOf(tag string) int64 {
	n, err := strconv.ParseInt(tag[strings.LastIndexByte(tag, ' ')+1:], 10, 64)
	if err != nil {
		return 0 // a tag without a number
	}
	return n
}
