/* Bytes on the heap, by who asked for them. */
#ifndef HEAP_H
#define HEAP_H

/* Counts from here on. */
void heap_begin(void);
/* Asked for by the library, and not given back. */
long heap_ours(void);
/* By anybody else. */
long heap_theirs(void);

#endif
