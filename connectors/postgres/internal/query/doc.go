// Package query writes the SQL that reads a stream. It is pure: the same value gives the
// same text, byte for byte, and nothing here talks to a server.
//
// Values are compared by the server, as the type and under the collation of their column.
// A literal is cast to that type without its modifier, so that it is never rounded to fit;
// the operator is named with its schema where it is not one of the server's own, so that
// the comparison and the order always agree.
package query
