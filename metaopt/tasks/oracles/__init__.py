"""Problems that are solved exactly: what a learner or an estimator should find, computed without sampling."""
