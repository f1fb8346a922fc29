// What numpy does where it was built without a BLAS library (-Dblas=none, numpy/_core/src/umath/matmul.c.src and
// multiarray/arraytypes.c.src): plain loops over strided elements that add into the result. In the place of a BLAS for a
// numpy that has one, so that scripts/arm.py can time both with the same numpy. Row-major float32 alone is called there;
// other types only have to be found.
#include <stddef.h>

enum { TRANSPOSED = 112 };

static void multiply(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const char *a, ptrdiff_t a_m, ptrdiff_t a_k, const char *b,
                     ptrdiff_t b_k, ptrdiff_t b_n, float alpha, float beta, char *c, ptrdiff_t c_m, ptrdiff_t c_n) {
  for (ptrdiff_t i = 0; i < m; ++i) {
    for (ptrdiff_t j = 0; j < n; ++j) {
      volatile float *out = (volatile float *)(c + i * c_m + j * c_n);  // numpy's compiler cannot tell them apart, either
      const float before = beta == 0 ? 0 : beta * *out;
      *out = 0;
      for (ptrdiff_t l = 0; l < k; ++l) {
        *out += *(const float *)(a + i * a_m + l * a_k) * *(const float *)(b + l * b_k + j * b_n);
      }
      *out = alpha * *out + before;
    }
  }
}

void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                 int ldb, float beta, float *c, int ldc) {
  (void)order;
  const ptrdiff_t s = sizeof(float), la = lda * s, lb = ldb * s;
  multiply(m, n, k, (const char *)a, ta == TRANSPOSED ? s : la, ta == TRANSPOSED ? la : s, (const char *)b,
           tb == TRANSPOSED ? s : lb, tb == TRANSPOSED ? lb : s, alpha, beta, (char *)c, ldc * s, s);
}

void cblas_sgemv(int order, int ta, int m, int n, float alpha, const float *a, int lda, const float *x, int incx,
                 float beta, float *y, int incy) {
  (void)order;
  const ptrdiff_t s = sizeof(float), la = lda * s;
  if (ta == TRANSPOSED) {
    multiply(n, 1, m, (const char *)a, s, la, (const char *)x, incx * s, 0, alpha, beta, (char *)y, incy * s, 0);
  } else {
    multiply(m, 1, n, (const char *)a, la, s, (const char *)x, incx * s, 0, alpha, beta, (char *)y, incy * s, 0);
  }
}

// numpy fills in the other half itself.
void cblas_ssyrk(int order, int uplo, int ta, int n, int k, float alpha, const float *a, int lda, float beta, float *c,
                 int ldc) {
  (void)uplo;
  cblas_sgemm(order, ta, ta == TRANSPOSED ? 111 : TRANSPOSED, n, n, k, alpha, a, lda, a, lda, beta, c, ldc);
}

float cblas_sdot(int n, const float *x, int incx, const float *y, int incy) {
  float sum = 0;
  for (ptrdiff_t i = 0; i < n; ++i) {
    sum += x[i * incx] * y[i * incy];
  }
  return sum;
}

void cblas_saxpy(int n, float alpha, const float *x, int incx, float *y, int incy) {
  for (ptrdiff_t i = 0; i < n; ++i) {
    y[i * incy] += alpha * x[i * incx];
  }
}

#define NOT_CALLED(name) \
  void name(void) { __builtin_trap(); }
NOT_CALLED(cblas_caxpy)
NOT_CALLED(cblas_cdotc_sub)
NOT_CALLED(cblas_cdotu_sub)
NOT_CALLED(cblas_cgemm)
NOT_CALLED(cblas_cgemv)
NOT_CALLED(cblas_csyrk)
NOT_CALLED(cblas_daxpy)
NOT_CALLED(cblas_ddot)
NOT_CALLED(cblas_dgemm)
NOT_CALLED(cblas_dgemv)
NOT_CALLED(cblas_dsyrk)
NOT_CALLED(cblas_zaxpy)
NOT_CALLED(cblas_zdotc_sub)
NOT_CALLED(cblas_zdotu_sub)
NOT_CALLED(cblas_zgemm)
NOT_CALLED(cblas_zgemv)
NOT_CALLED(cblas_zsyrk)
