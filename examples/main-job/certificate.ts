/** Self-signed, for `localhost`, good until 2120; made for this example, so it protects nothing. */
export const localhost: { readonly key: string; readonly certificate: string } = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKym/3d9RubY35YsH
IU67DdJNpeDfALfjnhWGO70boqKhRANCAAQAj413G893AMeLukPar8LaKW/GUE8C
swOiDR38ukLbtSeQfvP0LyyQwYXC7SsMG4fCfNOXaqBrolony67LGE0p
-----END PRIVATE KEY-----
`,
  certificate: `-----BEGIN CERTIFICATE-----
MIIBWjCCAQGgAwIBAgIUYi+PzkUxA12c5WKZKgQwV9YNlUwwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQAj413G893AMeLukPar8LaKW/GUE8CswOiDR38ukLbtSeQfvP0LyyQ
wYXC7SsMG4fCfNOXaqBrolony67LGE0poy8wLTAaBgNVHREEEzARgglsb2NhbGhv
c3SHBH8AAAEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBV+PXD
7Owy+YQMAomD/L6Ry5VV2TWe0+kHzjIqMwm7EAIgad/4fil77BTBFwPu3HrpUudo
xDA0enuKFqMYSPvi9A8=
-----END CERTIFICATE-----
`,
};
