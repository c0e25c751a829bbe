package rowcheck

import (
	"encoding/binary"
	"math/bits"
)

// hash is hashtextextended of PostgreSQL on a little-endian machine, for any collation
// that is deterministic: Bob Jenkins' lookup3, of which the last two words are kept.
func hash(text []byte, seed uint64) int64 {
	a := 0x9e3779b9 + uint32(len(text)) + 3923095 //nolint:gosec // a text is below 1 GB
	b, c := a, a
	if seed != 0 {
		a += uint32(seed >> 32)
		b += uint32(seed) //nolint:gosec // the lower half
		a, b, c = mix(a, b, c)
	}
	for len(text) >= 12 {
		a += binary.LittleEndian.Uint32(text)
		b += binary.LittleEndian.Uint32(text[4:])
		c += binary.LittleEndian.Uint32(text[8:])
		a, b, c = mix(a, b, c)
		text = text[12:]
	}
	var rest [12]byte
	copy(rest[:], text)
	a += binary.LittleEndian.Uint32(rest[:])
	b += binary.LittleEndian.Uint32(rest[4:])
	c += binary.LittleEndian.Uint32(rest[8:]) << 8 // its lowest byte was the length
	b, c = final(a, b, c)
	return int64(uint64(b)<<32 | uint64(c)) //nolint:gosec // the bits
}

func mix(a, b, c uint32) (_, _, _ uint32) {
	a, c = (a-c)^bits.RotateLeft32(c, 4), c+b
	b, a = (b-a)^bits.RotateLeft32(a, 6), a+c
	c, b = (c-b)^bits.RotateLeft32(b, 8), b+a
	a, c = (a-c)^bits.RotateLeft32(c, 16), c+b
	b, a = (b-a)^bits.RotateLeft32(a, 19), a+c
	c, b = (c-b)^bits.RotateLeft32(b, 4), b+a
	return a, b, c
}

func final(a, b, c uint32) (_, _ uint32) {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return b, c
}
