! One step of an MD code in Fortran: gfortran cv.f90 step.f90 cv.o -lm, with cv.c from
! ofcv.export(cv, "cv.c") and cv.f90 from `ofcv-export fortran cv.c`.
program step
  use, intrinsic :: iso_c_binding
  use cv_model
  implicit none
  real(c_float), allocatable :: positions(:), derivatives(:)
  real(c_float) :: values(1)
  integer :: n_atoms
  integer(c_int) :: code
  read (*, *) n_atoms
  allocate (positions(3 * n_atoms), derivatives(3 * n_atoms))
  read (*, *) positions
  code = cv_evaluate(positions, values, derivatives)
  if (code /= 0) error stop 'cv_evaluate'
  print '(es17.8e3)', values
  print '(3es17.8e3)', derivatives
end program step
