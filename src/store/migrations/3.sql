-- Version 3: how each call was judged.

ALTER TABLE calls ADD COLUMN trace /* JSON list of the steps of the decision, numbers masked; NULL before version 3 */ TEXT;
