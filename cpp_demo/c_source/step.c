/* One step of an MD code in C: cc step.c cv.c -lm, with cv.c from ofcv.export(cv, "cv.c"). */

#include <stdio.h>
#include <stdlib.h>

int cv_evaluate(const float *positions, float *values, float *derivatives);
const char *cv_error(int code);

/* Reads 3 numbers for each atom, and prints the value and its derivatives. */
int main(int argc, char **argv) {
  const int n_atoms = argc > 1 ? atoi(argv[1]) : 0;
  float *positions = malloc(3 * (size_t)n_atoms * sizeof(float));
  float *derivatives = malloc(3 * (size_t)n_atoms * sizeof(float));
  float value = 0.0f;
  int code = 0;
  for (int i = 0; i < 3 * n_atoms; ++i) {
    if (scanf("%f", positions + i) != 1) return 1;
  }
  code = cv_evaluate(positions, &value, derivatives);
  if (code != 0) {
    fprintf(stderr, "%s\n", cv_error(code));
    return 1;
  }
  printf("%.9g\n", value);
  for (int i = 0; i < n_atoms; ++i) {
    const float *slope = derivatives + 3 * i;
    printf("%.9g %.9g %.9g\n", slope[0], slope[1], slope[2]);
  }
  free(positions);
  free(derivatives);
  return 0;
}
