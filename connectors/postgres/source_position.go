package postgres

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	arrowext "github.com/apache/arrow-go/v18/arrow/extensions"
)

// isDecimal reports whether values of t have a fixed number of digits behind the point.
func isDecimal(t arrow.DataType) bool {
	return t.ID() == arrow.DECIMAL128 || t.ID() == arrow.DECIMAL256
}

// hasText reports whether textAt writes values of t as the server reads them.
func hasText(t arrow.DataType) bool {
	if slices.Contains(withText, t.ID()) {
		return true
	}
	_, ok := t.(*arrowext.UUIDType)
	return ok
}

var withText = []arrow.Type{
	arrow.INT16, arrow.INT32, arrow.INT64, arrow.STRING, arrow.TIMESTAMP, arrow.DATE32, arrow.DECIMAL128, arrow.DECIMAL256,
}

// textAt writes the value of row i so that the server reads exactly it.
func textAt(a arrow.Array, i int) string {
	switch a := a.(type) {
	case *array.Int16:
		return strconv.FormatInt(int64(a.Value(i)), 10)
	case *array.Int32:
		return strconv.FormatInt(int64(a.Value(i)), 10)
	case *array.Int64:
		return strconv.FormatInt(a.Value(i), 10)
	case *array.String:
		return strings.Clone(a.Value(i)) // the batch is gone when the position is used
	case *array.Timestamp:
		zone := ""
		if t, ok := a.DataType().(*arrow.TimestampType); ok && t.TimeZone != "" {
			zone = "+00"
		}
		return timeText(time.UnixMicro(int64(a.Value(i))).UTC(), "2006-01-02 15:04:05.999999", zone)
	case *array.Date32:
		return timeText(time.Unix(int64(a.Value(i))*secondsPerDay, 0).UTC(), time.DateOnly, "")
	case *array.Decimal128:
		return a.ValueStr(i)
	case *array.Decimal256:
		return a.ValueStr(i)
	case *arrowext.UUIDArray:
		return a.Value(i).String()
	}
	panic("postgres: no text for " + a.DataType().String())
}

const secondsPerDay = 24 * 60 * 60

// timeText writes a time; the server counts years before the first one as BC.
func timeText(t time.Time, layout, zone string) string {
	year := t.Year()
	if year > 0 {
		return t.Format(layout) + zone
	}
	return fmt.Sprintf("%04d", 1-year) + t.Format(layout[len("2006"):]) + zone + " BC"
}
