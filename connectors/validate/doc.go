// Package validate describes the transform that sets rows aside which break a
// rule.
//
// It holds what a document may say about it: Config, final in shape and fully
// validated. A rule names its assertion by its key, so that a rule reads as a
// sentence:
//
//	rules:
//	  - assert_not_null: [id, email]
//	  - assert_unique: id
//	  - assert_regex: {field: email, pattern: "^[^@]+@[^@]+$"}
//	  - assert_range: {field: age, min: 0, max: 150}
//
// Problems reports everything at once: rules without or with several
// assertions, patterns that do not compile, empty ranges.
package validate
