package codec

import (
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// FuzzQuickNumeric: the short way from a text to a numeric is the long one.
func FuzzQuickNumeric(f *testing.F) {
	for _, s := range []string{
		"0", "-0", "0.00", "1", "-1.5", "12345678.00012", "0.00001234", "9999999999999999.9999999999999999", "10000", "100000000.0000",
		"00012", "12345678901234567", ".5", "5.", "1.2.3", "NaN", "", "-", "1e5", "1\xb0", "0.0000000000000001",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		to := make([]byte, decimalQuick+len(s)+16)
		n := quickNumeric(to, []byte(s))
		if n == 0 {
			return
		}
		want, fault := appendNumericText(nil, []byte(s))
		require.Nil(t, fault)
		require.Equal(t, want, to[:n])
	})
}

// FuzzQuickDecimal: the short way from a decimal to a numeric is the long one.
func FuzzQuickDecimal(f *testing.F) {
	f.Add(int64(0), uint8(0))
	f.Add(int64(-1), uint8(4))
	f.Add(int64(12_0000), uint8(6))
	f.Add(int64(9_999_999_999_999_999), uint8(1))
	f.Add(int64(math.MinInt64), uint8(38))
	f.Fuzz(func(t *testing.T, v int64, scale uint8) {
		dt := &arrow.Decimal128Type{Precision: 38, Scale: int32(scale % 39)}
		b := array.NewDecimal128Builder(memory.DefaultAllocator, dt)
		b.Append(decimal128.FromI64(v))
		a := b.NewArray()
		c, why := planCell(arrow.Field{Name: "c", Type: dt}, numericOf(38, int32(scale%39)))
		require.Empty(t, why)
		c.hasten()
		c.bind(a)
		to := make([]byte, decimalQuick)
		n := c.quick(to, 0)
		if n == 0 {
			require.True(t, v <= -1e12 || v >= 1e12, "a small one is quick")
			return
		}
		want, fault := c.put(nil, 0)
		require.Nil(t, fault)
		require.Equal(t, want, to[:n])
	})
}
