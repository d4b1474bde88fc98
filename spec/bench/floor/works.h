/* What the floor can be asked to do. Each function does it once. */
#ifndef FLOOR_WORKS_H
#define FLOOR_WORKS_H

#include "tree.h"

/* All files anew, in a new version. */
void rewrite(const tree *t, const turn *now);

/* One file anew; the others are linked from the old version. LOOKS: once it has been seen
 * that nobody has changed them. */
void change_one(const tree *t, const turn *now, bool looks);

/* Open, read, compare and close each file of the live version. */
void compare(const tree *t, const turn *now);

/* The same with a look at its mode and owner. */
void verify(const tree *t, const turn *now);

/* statx of each file of the version AT, and nothing else. */
void look(const tree *t, int at);

/* What many tools do instead, without versions: write a temporary file beside
 * each one, rename it over the old one. Readers see a mixture. */
void replace_each(const tree *t, const turn *now);
void replace_one(const tree *t, const turn *now);

#endif
