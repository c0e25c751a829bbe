package codec

// fault is why one value cannot be taken. Faults are constants, so that finding one
// costs nothing in the loops; the caller adds column and row.
type fault struct {
	class faultClass
	why   string
	// show says that the value, clipped, helps whoever reads the error.
	show bool
}

type faultClass uint8

const (
	classValue  faultClass = iota // the value has no place: ValueError
	classFiner                    // the same, and ValueError.Finer
	classFormat                   // the wire is not what it should be: FormatError
	classRoom                     // the column would grow past what a batch may have
)

var (
	faultLength    = &fault{class: classFormat, why: "a value has the wrong length"}
	faultNumeric   = &fault{class: classFormat, why: "a numeric is malformed"}
	faultArray     = &fault{class: classFormat, why: "an array is malformed"}
	faultElement   = &fault{class: classFormat, why: "an array has elements of another type"}
	faultJSONB     = &fault{class: classFormat, why: "a jsonb has an unknown version"}
	faultBool      = &fault{class: classFormat, why: "a boolean is neither true nor false"}
	faultRoom      = &fault{class: classRoom}
	faultNull      = &fault{why: "null in a column that is declared not null"}
	faultInfinity  = &fault{why: "infinity has no place in the Arrow type"}
	faultNegInf    = &fault{why: "minus infinity has no place in the Arrow type"}
	faultRange     = &fault{why: "the value is out of range of the Arrow type"}
	faultMidnight  = &fault{why: "24:00:00 is no time of day in Arrow"}
	faultNaN       = &fault{why: "NaN has no place in a decimal"}
	faultPrecision = &fault{why: "more digits than the precision allows"}
	faultScale     = &fault{why: "more digits behind the point than the scale allows"}
	faultUTF8      = &fault{why: "the text is not valid UTF-8", show: true}
	faultHighByte  = &fault{why: "the byte is not an ASCII character", show: true}
	faultNested    = &fault{why: "the array has more than one dimension"}
	faultBound     = &fault{why: "the array does not begin at index 1"}

	faultServerRange = &fault{why: "the value is out of range of the column type", show: true}
	faultInexact     = &fault{why: "the number has more digits than the float", show: true}
	faultFiner       = &fault{class: classFiner, why: "the value has smaller parts of a second than the column type keeps", show: true}
	faultDay         = &fault{why: "the date is not a whole day", show: true}
	faultLong        = &fault{why: "the value is longer than the column type allows", show: true}
	faultUUID        = &fault{why: "the text is not a UUID", show: true}
	faultNumber      = &fault{why: "the text is not a number", show: true}

	faultNUL       = &fault{why: "the text has a NUL character", show: true}
	faultEscape    = &fault{why: `jsonb has no place for the character \u0000`, show: true}
	faultSurrogate = &fault{why: "half a surrogate pair is no character", show: true}
	faultJSON      = &fault{why: "the text is not JSON", show: true}
	faultFinite    = &fault{why: "JSON has neither NaN nor infinity"}
	faultKeys      = &fault{why: "a JSON object has each key once"}
)
