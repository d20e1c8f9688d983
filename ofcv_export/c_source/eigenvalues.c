/* Eigenvalues, in ascending order, and eigenvectors, as columns, of a symmetric matrix a (n, n) of
   which the lower triangle counts, by cyclic Jacobi rotations (Golub and Van Loan, Matrix
   Computations, 8.5). a is overwritten. */

static void ofcv_rotate(int n, double *a, double *vectors, int p, int q) {
  const double apq = a[q * n + p], difference = a[q * n + q] - a[p * n + p];
  if (apq == 0.0) return;
  /* the smaller of the two tangents t that take a[p][q] to zero */
  const double half = 0.5 * difference / apq;
  const double root = half * half < 1e300 ? sqrt(half * half + 1.0) : (half < 0.0 ? -half : half);
  const double t = 1.0 / (half < 0.0 ? half - root : half + root);
  const double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
  for (int k = 0; k < n; ++k) {
    const double akp = a[k * n + p], akq = a[k * n + q];
    a[k * n + p] = c * akp - s * akq;
    a[k * n + q] = s * akp + c * akq;
  }
  for (int k = 0; k < n; ++k) {
    const double apk = a[p * n + k], aqk = a[q * n + k];
    a[p * n + k] = c * apk - s * aqk;
    a[q * n + k] = s * apk + c * aqk;
  }
  for (int k = 0; k < n; ++k) {
    const double vkp = vectors[k * n + p], vkq = vectors[k * n + q];
    vectors[k * n + p] = c * vkp - s * vkq;
    vectors[k * n + q] = s * vkp + c * vkq;
  }
}

static void ofcv_eigenvalues(int n, double *a, double *values, double *vectors) {
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      vectors[i * n + j] = i == j ? 1.0 : 0.0;
      if (j > i) a[i * n + j] = a[j * n + i];
    }
  }
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0.0, all = 0.0;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        all += a[i * n + j] * a[i * n + j];
        if (j != i) off += a[i * n + j] * a[i * n + j];
      }
    }
    if (!(off > all * 1e-36)) break;
    for (int p = 0; p < n; ++p) {
      for (int q = p + 1; q < n; ++q) ofcv_rotate(n, a, vectors, p, q);
    }
  }
  for (int i = 0; i < n; ++i) values[i] = a[i * n + i];
  for (int i = 0; i < n; ++i) {
    int smallest = i;
    for (int j = i + 1; j < n; ++j) {
      if (values[j] < values[smallest]) smallest = j;
    }
    const double value = values[i];
    values[i] = values[smallest];
    values[smallest] = value;
    for (int k = 0; k < n; ++k) {
      const double entry = vectors[k * n + i];
      vectors[k * n + i] = vectors[k * n + smallest];
      vectors[k * n + smallest] = entry;
    }
  }
}
