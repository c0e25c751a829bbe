package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"rapidbyte.io/node/messages"
)

// Format is the version of the encoding; another one is refused.
const Format = 1

// envelope is the file: the checksum is over the exact bytes of Body.
type envelope struct {
	Format int             `json:"format"`
	SHA256 string          `json:"sha256"`
	Body   json.RawMessage `json:"manifest"`
}

// Encode returns the file of m. The parts as planned are most of it and seldom
// change: they are encoded once and kept with the states that follow.
func Encode(m *Manifest) ([]byte, error) {
	bare := *m
	bare.Parts = nil
	body, err := json.Marshal(&bare)
	if err == nil && m.parts == nil {
		m.parts, err = json.Marshal(m.Parts)
	}
	if err != nil {
		return nil, fmt.Errorf("encode manifest %d: %w", m.Number, err)
	}
	if len(m.Parts) > 0 {
		body = append(body[:len(body)-1], `,"parts":`...)
		body = append(append(body, m.parts...), '}')
	}
	sum := sha256.Sum256(body)
	out := make([]byte, 0, len(body)+128)
	out = fmt.Appendf(out, `{"format":%d,"sha256":"%s","manifest":`, Format, hex.EncodeToString(sum[:]))
	out = append(out, body...)
	return append(out, "}\n"...), nil
}

// Decode reads the file that is called by number and belongs to pipeline p. Any
// doubt is an error: a manifest is never guessed.
func Decode(b []byte, number uint64, p messages.PipelineID) (*Manifest, error) {
	var e envelope
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, fmt.Errorf("it is not a whole manifest: %w", err)
	}
	if e.Format != Format {
		return nil, fmt.Errorf("it has format %d, this version reads %d", e.Format, Format)
	}
	sum := sha256.Sum256(e.Body)
	if hex.EncodeToString(sum[:]) != e.SHA256 {
		return nil, errors.New("its checksum does not hold")
	}
	m := new(Manifest)
	if err := json.Unmarshal(e.Body, m); err != nil {
		return nil, fmt.Errorf("its content cannot be read: %w", err)
	}
	if m.Number != number || m.Pipeline != p {
		return nil, fmt.Errorf("it says that it is number %d of pipeline %q", m.Number, m.Pipeline)
	}
	return m, nil
}

// Name returns the file name of manifest n.
func Name(n uint64) string { return fmt.Sprintf("m-%020d.json", n) }

// ParseName is the inverse of Name; ok is false for any other file.
func ParseName(name string) (n uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, "m-")
	if !ok {
		return 0, false
	}
	if digits, ok = strings.CutSuffix(digits, ".json"); !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}
