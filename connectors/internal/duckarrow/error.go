package duckarrow

import (
	"encoding/json"
	"strings"

	"github.com/duckdb/duckdb-go/v2/mapping"
)

// Class says what kind of thing DuckDB complains about: the words before the
// colon of its message.
type Class string

// The classes that callers branch on.
const (
	ClassBinder     Class = "Binder Error"
	ClassCatalog    Class = "Catalog Error"
	ClassConstraint Class = "Constraint Error"
	ClassConversion Class = "Conversion Error"
	ClassInterrupt  Class = "INTERRUPT Error"
	ClassInternal   Class = "INTERNAL Error"
	ClassFatal      Class = "FATAL Error"
	ClassIO         Class = "IO Error"
	ClassMemory     Class = "Out of Memory Error"
	ClassPermission Class = "Permission Error"
	ClassRange      Class = "Out of Range Error"
	ClassInput      Class = "Invalid Input Error"
	ClassParser     Class = "Parser Error"
	ClassTx         Class = "TransactionContext Error"
	ClassTxConflict Class = "Transaction Error"
)

// classes maps DuckDB's numbers where its message does not begin with a class.
var classes = map[mapping.ErrorType]Class{
	mapping.ErrorTypeBinder: ClassBinder, mapping.ErrorTypeCatalog: ClassCatalog, mapping.ErrorTypeConstraint: ClassConstraint,
	mapping.ErrorTypeConversion: ClassConversion, mapping.ErrorTypeInterrupt: ClassInterrupt, mapping.ErrorTypeInternal: ClassInternal,
	mapping.ErrorTypeFatal: ClassFatal, mapping.ErrorTypeErrorIO: ClassIO, mapping.ErrorTypeOutOfMemory: ClassMemory,
	mapping.ErrorTypePermission: ClassPermission, mapping.ErrorTypeOutOfRange: ClassRange, mapping.ErrorTypeInvalidInput: ClassInput,
	mapping.ErrorTypeTransaction: ClassTx,
}

// Error is a complaint of DuckDB.
type Error struct {
	Class Class // empty when the message has none
	Text  string
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// newError splits DuckDB's message. What DuckDB appends ("LINE 1: ...") stays: it
// tells where in the query the mistake is. Some functions return JSON instead.
func newError(text string) *Error {
	text = strings.TrimSpace(text)
	var wrapped struct {
		Type    string `json:"exception_type"`
		Message string `json:"exception_message"`
	}
	if strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &wrapped) == nil && wrapped.Message != "" {
		text = wrapped.Type + " Error: " + wrapped.Message
	}
	class, _, ok := strings.Cut(text, ":")
	if !ok || !strings.HasSuffix(strings.ToLower(class), " error") {
		class = ""
	}
	return &Error{Class: Class(class), Text: text}
}
