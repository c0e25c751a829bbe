package file

import (
	"math"
	"slices"
	"strconv"
	"time"
	"unsafe"
)

// The strict readers accept a text only if the value says all of it: no leading
// zero, no plus sign, no digit lost. What they refuse stays text when types are
// inferred. The lenient forms serve declared columns.

// maxExactInt is the largest integer up to which every integer is a float64.
const maxExactInt = 1 << 53

// maxFloatDigits is how many significant digits the shortest text of a float64
// can have; a text with more is not a float64.
const maxFloatDigits = 17

func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// parseInt reads a canonical decimal integer.
func parseInt(b []byte) (int64, bool) {
	digits := b
	if len(b) > 0 && b[0] == '-' {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 || (digits[0] == '0' && len(b) > 1) {
		return 0, false
	}
	var u uint64
	for _, c := range digits {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		u = u*10 + uint64(c) // 19 digits fit
	}
	if len(digits) == len(b) {
		return int64(u), u <= math.MaxInt64 //nolint:gosec // checked
	}
	return -int64(u), u <= 1<<63 //nolint:gosec // checked; -2^63 wraps onto itself
}

// lenientInt reads what a declared integer column may hold: also +5 and 007.
func lenientInt(b []byte) (int64, bool) {
	v, err := strconv.ParseInt(viewString(b), 10, 64)
	return v, err == nil
}

// isFloat reports whether b is a decimal number whose digits a float64 can give
// back. Integers are one too.
func isFloat(b []byte) bool {
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	whole := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	digits := i - whole
	if digits > 1 && b[whole] == '0' {
		return false
	}
	significant := b[whole:i]
	if i < len(b) && b[i] == '.' {
		i++
		from := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		digits += i - from
		significant = b[whole:i]
	}
	if digits == 0 {
		return false
	}
	if len(significant) > maxFloatDigits && countSignificant(significant) > maxFloatDigits {
		return false
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		from := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == from {
			return false
		}
	}
	return i == len(b)
}

// countSignificant counts the digits between the first and the last that is not 0.
func countSignificant(b []byte) int {
	first, last, n := -1, 0, 0
	for _, c := range b {
		if c == '.' {
			continue
		}
		if c != '0' {
			if first < 0 {
				first = n
			}
			last = n
		}
		n++
	}
	if first < 0 {
		return 0
	}
	return last - first + 1
}

// parseFloat reads what isFloat accepts and a float64 can hold: neither an
// overflow nor a number that would become zero.
func parseFloat(b []byte) (float64, bool) {
	if !isFloat(b) {
		return 0, false
	}
	v, err := strconv.ParseFloat(viewString(b), 64)
	if err != nil {
		return 0, false
	}
	return v, v != 0 || isZeroText(b)
}

func isZeroText(b []byte) bool {
	for _, c := range b {
		if c == 'e' || c == 'E' {
			return true
		}
		if c >= '1' && c <= '9' {
			return false
		}
	}
	return true
}

// lenientFloat reads any number, NaN and the infinities by name.
func lenientFloat(b []byte, bits int) (float64, bool) {
	if len(b) > 1 && b[0] == '0' && (b[1] == 'x' || b[1] == 'X') {
		return 0, false
	}
	if slices.Contains(b, '_') {
		return 0, false
	}
	v, err := strconv.ParseFloat(viewString(b), bits)
	return v, err == nil
}

func parseBool(b []byte) (v, ok bool) {
	switch string(b) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// lenientBool reads the spellings that other systems write.
func lenientBool(b []byte) (v, ok bool) {
	switch string(b) {
	case "true", "TRUE", "True", "t", "T", "1":
		return true, true
	case "false", "FALSE", "False", "f", "F", "0":
		return false, true
	}
	return false, false
}

// twoDigits reads b[0:2]; values over 99 mean that they are no digits.
func twoDigits(b []byte) int {
	x, y := b[0]-'0', b[1]-'0'
	if x > 9 || y > 9 {
		return 100
	}
	return int(x)*10 + int(y)
}

// parseDate reads YYYY-MM-DD as days since 1970.
func parseDate(b []byte) (int32, bool) {
	if len(b) != 10 || b[4] != '-' || b[7] != '-' {
		return 0, false
	}
	century, year := twoDigits(b), twoDigits(b[2:])
	month, day := twoDigits(b[5:]), twoDigits(b[8:])
	if century > 99 || year > 99 || month < 1 || month > 12 || day < 1 {
		return 0, false
	}
	year += century * 100
	if day > daysIn(year, month) {
		return 0, false
	}
	return daysSince1970(year, month, day), true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts in the proleptic Gregorian calendar, by eras of 400 years
// that begin in March.
func daysSince1970(year, month, day int) int32 {
	if month <= 2 {
		year--
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	yearOfEra := year - era*400
	dayOfYear := (153*((month+9)%12)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return int32(era*146097 + dayOfEra - 719468) //nolint:gosec // four-digit years
}

// parseTimestamp reads YYYY-MM-DD, a T or a space, HH:MM[:SS[.f up to 6]] and a zone
// or none, as microseconds since 1970 (of the wall clock, or UTC with a zone).
func parseTimestamp(b []byte) (us int64, zoned, ok bool) {
	if len(b) < 16 || (b[10] != 'T' && b[10] != ' ') || b[13] != ':' {
		return 0, false, false
	}
	days, ok := parseDate(b[:10])
	hour, minute := twoDigits(b[11:]), twoDigits(b[14:])
	if !ok || hour > 23 || minute > 59 {
		return 0, false, false
	}
	us = (int64(days)*1440 + int64(hour)*60 + int64(minute)) * 60_000_000
	rest := b[16:]
	if len(rest) >= 3 && rest[0] == ':' {
		second := twoDigits(rest[1:])
		if second > 59 {
			return 0, false, false
		}
		us += int64(second) * 1_000_000
		rest = rest[3:]
		if len(rest) > 0 && rest[0] == '.' {
			n, fraction := fractionOf(rest[1:])
			if n == 0 {
				return 0, false, false
			}
			us += fraction
			rest = rest[1+n:]
		}
	}
	if len(rest) == 0 {
		return us, false, true
	}
	minutes, ok := parseZone(rest)
	return us - int64(minutes)*60_000_000, true, ok
}

// fractionOf reads 1 to 6 digits as microseconds and returns how many they are.
func fractionOf(b []byte) (n int, us int64) {
	for n < len(b) && n < 6 && b[n]-'0' <= 9 {
		us = us*10 + int64(b[n]-'0')
		n++
	}
	for i := n; i < 6; i++ {
		us *= 10
	}
	return n, us
}

// parseZone reads Z, +HH, +HHMM or +HH:MM as minutes east of UTC.
func parseZone(b []byte) (minutes int, ok bool) {
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, true
	}
	if len(b) < 3 || (b[0] != '+' && b[0] != '-') {
		return 0, false
	}
	hour, minute := twoDigits(b[1:]), 0
	switch {
	case len(b) == 5:
		minute = twoDigits(b[3:])
	case len(b) == 6 && b[3] == ':':
		minute = twoDigits(b[4:])
	case len(b) != 3:
		return 0, false
	}
	if hour > 15 || minute > 59 {
		return 0, false
	}
	minutes = hour*60 + minute
	if b[0] == '-' {
		minutes = -minutes
	}
	return minutes, true
}

// lenientTimestamp reads a timestamp, or a date as its midnight.
func lenientTimestamp(b []byte) (us int64, zoned, ok bool) {
	if days, ok := parseDate(b); ok {
		return int64(days) * 86_400_000_000, false, true
	}
	if us, zoned, ok = parseTimestamp(b); ok {
		return us, zoned, true
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil || t.Nanosecond()%1000 != 0 {
		return 0, false, false
	}
	return t.UnixMicro(), true, true
}
